package settings

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
)

// DefaultVolumes says what becomes of volumes that nobody names.
type DefaultVolumes string

// What there is to become of them.
const (
	// OptIn moves only what an annotation or a volume policy names.
	OptIn DefaultVolumes = "opt-in"
	// OptOut moves everything that isn't excluded or somebody else's.
	OptOut DefaultVolumes = "opt-out"
)

// Unprotected says how loud a volume without any protection is.
type Unprotected string

// How loud it may be.
const (
	// UnprotectedWarn warns of it.
	UnprotectedWarn Unprotected = "warn"
	// UnprotectedFail makes the backup partially failed.
	UnprotectedFail Unprotected = "fail"
)

// The keys of the ConfigMap. Those of the gate are in gate.go.
const (
	keyDefaultVolumes    = "default-volumes"
	keyUnprotected       = "unprotected"
	keyHostPathPrefixes  = "host-path-prefixes"
	keySecretCSIDrivers  = "secret-csi-drivers"
	keyOnMissingSnapshot = "on-missing-snapshot"
	keyExistingData      = "existing-data"
	keyOnFileError       = "on-file-error"
)

// Settings are all that can be set.
type Settings struct {
	// DefaultVolumes says what becomes of volumes that nobody names.
	DefaultVolumes DefaultVolumes
	// Unprotected says how loud a volume without any protection is.
	Unprotected Unprotected
	// HostPathPrefixes are the folders of the nodes, as clean absolute paths,
	// below which hostPath volumes may be moved.
	HostPathPrefixes []string
	// SecretCSIDrivers are further CSI drivers whose volumes hold credentials, and are never moved.
	SecretCSIDrivers []string
	// OnMissingSnapshot says what a restore does about a volume without a snapshot.
	OnMissingSnapshot v1alpha1.OnMissingSnapshot
	// ExistingData says what a restore does about data that it finds in a volume.
	ExistingData v1alpha1.ExistingData
	// OnFileError says what a restore does about a file that it can't restore.
	OnFileError v1alpha1.OnFileError
	// Gate says how the init container that holds restored pods differs from what it is by default.
	Gate Gate
}

// Problems are what is wrong with the settings. Each names where it is set.
type Problems struct {
	// Errors are values that can't be read; a default stands in for each.
	Errors []string
	// Warnings are keys that mean nothing.
	Warnings []string
}

// Defaults returns the settings where nobody sets anything.
func Defaults() Settings {
	return Settings{DefaultVolumes: OptIn, Unprotected: UnprotectedWarn, OnMissingSnapshot: v1alpha1.MissingFail, ExistingData: v1alpha1.ExistingRefuse, OnFileError: v1alpha1.FileErrorFail}
}

// Read returns the settings that the ConfigMap sets. The caller passes all
// ConfigMaps of Velero's namespace that bear the label contract.LabelPluginConfig; there must be at most one.
func Read(maps []corev1.ConfigMap) (Settings, Problems) {
	r := reader{settings: Defaults()}

	switch len(maps) {
	case 0:
	case 1:
		r.where = fmt.Sprintf("ConfigMap %s/%s, key ", maps[0].Namespace, maps[0].Name)
		r.configMap(&maps[0])
	default:
		r.failf("more than one ConfigMap bears the label %s: %s; none of them counts until all but one are deleted or lose the label", contract.LabelPluginConfig, names(maps))
	}

	return r.settings, r.problems
}

// ForBackup returns the settings as the annotations of a Backup change them.
func (s Settings) ForBackup(name string, annotations map[string]string) (Settings, Problems) {
	r := reader{settings: s, where: fmt.Sprintf("Backup %s, annotation ", name)}

	r.annotation(annotations, contract.AnnotationDefaultVolumes, keyDefaultVolumes)
	r.annotation(annotations, contract.AnnotationUnprotected, keyUnprotected)

	return r.settings, r.problems
}

// ForRestore returns the settings as the annotations of a Restore change them.
func (s Settings) ForRestore(name string, annotations map[string]string) (Settings, Problems) {
	r := reader{settings: s, where: fmt.Sprintf("Restore %s, annotation ", name)}

	r.annotation(annotations, contract.AnnotationOnMissingSnapshot, keyOnMissingSnapshot)
	r.annotation(annotations, contract.AnnotationExistingData, keyExistingData)
	r.annotation(annotations, contract.AnnotationOnFileError, keyOnFileError)

	return r.settings, r.problems
}

// And returns both lists.
func (p Problems) And(more Problems) Problems {
	return Problems{Errors: slices.Concat(p.Errors, more.Errors), Warnings: slices.Concat(p.Warnings, more.Warnings)}
}

// reader collects settings and what is wrong with them.
type reader struct {
	settings Settings
	problems Problems
	// where is the object that is being read.
	where string
}

func (r *reader) failf(format string, args ...any) {
	r.problems.Errors = append(r.problems.Errors, fmt.Sprintf(format, args...))
}

func (r *reader) configMap(cm *corev1.ConfigMap) {
	for _, key := range slices.Sorted(maps.Keys(cm.Data)) {
		value := strings.TrimSpace(cm.Data[key])

		if !r.value(key, key, value) && !r.gate(key, value) {
			r.unknown(key)
		}
	}

	for _, key := range slices.Sorted(maps.Keys(cm.BinaryData)) {
		r.unknown(key)
	}

	r.gateFits()
}

func (r *reader) unknown(key string) {
	r.problems.Warnings = append(r.problems.Warnings, fmt.Sprintf("%s%s: there is no such setting; it is ignored", r.where, key))
}

func (r *reader) annotation(annotations map[string]string, annotation, key string) {
	if value, ok := annotations[annotation]; ok {
		r.value(annotation, key, strings.TrimSpace(value))
	}
}

// value sets what the key stands for, and reports whether there is such a key. Title is what people know it by.
func (r *reader) value(title, key, value string) bool {
	s := &r.settings

	switch key {
	case keyDefaultVolumes:
		oneOf(r, title, value, &s.DefaultVolumes, OptIn, OptOut)
	case keyUnprotected:
		oneOf(r, title, value, &s.Unprotected, UnprotectedWarn, UnprotectedFail)
	case keyOnMissingSnapshot:
		oneOf(r, title, value, &s.OnMissingSnapshot, v1alpha1.MissingFail, v1alpha1.MissingEmpty, v1alpha1.MissingPrevious)
	case keyExistingData:
		oneOf(r, title, value, &s.ExistingData, v1alpha1.ExistingRefuse, v1alpha1.ExistingOverwrite, v1alpha1.ExistingMirror, v1alpha1.ExistingKeep)
	case keyOnFileError:
		oneOf(r, title, value, &s.OnFileError, v1alpha1.FileErrorFail, v1alpha1.FileErrorSkip)
	case keyHostPathPrefixes:
		s.HostPathPrefixes = r.prefixes(title, value)
	case keySecretCSIDrivers:
		s.SecretCSIDrivers = list(value)
	default:
		return false
	}

	return true
}

// oneOf sets one of the allowed values. An empty one leaves what was set before.
func oneOf[T ~string](r *reader, title, value string, into *T, allowed ...T) {
	switch {
	case value == "":
	case slices.Contains(allowed, T(value)):
		*into = T(value)
	default:
		words := make([]string, 0, len(allowed))
		for _, a := range allowed {
			words = append(words, string(a))
		}

		r.failf("%s%s: %q is not allowed, only %s; it counts as %s", r.where, title, value, strings.Join(words, ", "), *into)
	}
}

func (r *reader) prefixes(title, value string) []string {
	var good []string

	for _, p := range list(value) {
		clean := path.Clean(p)
		if !path.IsAbs(p) || clean == "/" || slices.Contains(strings.Split(p, "/"), "..") {
			r.failf("%s%s: %q is not allowed, only absolute paths below /; it is left out", r.where, title, p)

			continue
		}

		good = append(good, clean)
	}

	return good
}

// list reads entries between commas or on lines of their own.
func list(value string) []string {
	var entries []string

	for e := range strings.FieldsFuncSeq(value, func(c rune) bool { return c == ',' || c == '\n' }) {
		if e = strings.TrimSpace(e); e != "" {
			entries = append(entries, e)
		}
	}

	return entries
}

func names(maps []corev1.ConfigMap) string {
	var all []string
	for i := range maps {
		all = append(all, maps[i].Namespace+"/"+maps[i].Name)
	}

	slices.SortFunc(all, cmp.Compare)

	return strings.Join(all, ", ")
}
