package operation

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// ErrID is what every error about an operation's ID wraps.
var ErrID = errors.New("not an operation of estiba")

// Kind is the kind of the jobs that an operation stands for.
type Kind string

// The kinds of operations.
const (
	// Backup stands for VolumeBackups.
	Backup Kind = "VolumeBackup"
	// Restore stands for VolumeRestores.
	Restore Kind = "VolumeRestore"
)

const (
	prefix    = "estiba/v1/"
	separator = ","
	// maxJobs bounds what is believed of an ID: Kubernetes allows no pod with more volumes in practice.
	maxJobs = 1024
)

var jobName = regexp.MustCompile(`^v[br]-[0-9a-f]{40}$`)

// ID names the jobs that one operation reports.
type ID struct {
	// Kind of all the jobs.
	Kind Kind
	// Jobs are their names, in Velero's namespace; at least one.
	Jobs []string
}

// String returns the operation's ID as Velero keeps it: estiba/v1/KIND/NAME[,NAME...].
func (id ID) String() string {
	return prefix + string(id.Kind) + "/" + strings.Join(id.Jobs, separator)
}

// Parse is the inverse of String. Errors wrap ErrID.
func Parse(s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return ID{}, fmt.Errorf("%w: %.200q doesn't begin with %s", ErrID, s, prefix)
	}

	kind, names, ok := strings.Cut(rest, "/")
	if !ok || Kind(kind) != Backup && Kind(kind) != Restore {
		return ID{}, fmt.Errorf("%w: %.200q: expected the kind %s or %s", ErrID, s, Backup, Restore)
	}

	id := ID{Kind: Kind(kind), Jobs: strings.Split(names, separator)}
	if len(id.Jobs) > maxJobs {
		return ID{}, fmt.Errorf("%w: %d jobs, more than %d", ErrID, len(id.Jobs), maxJobs)
	}

	seen := make(map[string]bool, len(id.Jobs))

	for _, name := range id.Jobs {
		if !jobName.MatchString(name) || !strings.HasPrefix(name, id.Kind.prefix()) || seen[name] {
			return ID{}, fmt.Errorf("%w: %.200q: %.60q is not a name of a %s, or stands twice", ErrID, s, name, id.Kind)
		}

		seen[name] = true
	}

	return id, nil
}

func (k Kind) prefix() string {
	if k == Restore {
		return "vr-"
	}

	return "vb-"
}
