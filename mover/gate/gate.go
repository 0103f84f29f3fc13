// Package gate writes the files of a restored pod's gate, and reads back what it
// wrote: a line of progress, and the outcome that lets the pod start or keeps it
// from starting. The waiting side is cmd/restore-wait.
//
// The files lie in an emptyDir of the pod, which only the gate's container
// mounts, and that one read-only. The package reaches them through mover/beneath
// and a descriptor of that folder, and must not touch anything else. It does not
// decide when a gate opens.
package gate

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/contract"
)

// ErrFinal means that the gate is open. The pod may have started, so nothing else can be said of it.
var ErrFinal = errors.New("the gate is open already")

const (
	// fileMode lets the gate's container read as whatever user it runs.
	fileMode = 0o644
	// maxLine bounds the line of progress, in bytes.
	maxLine = 512
	// maxFile bounds what is read back, in bytes.
	maxFile = 64 << 10
)

// Gate is the gate of one pod. It is for one goroutine at a time.
type Gate struct {
	root *beneath.Root
	now  func() time.Time
}

// State is what the files say.
type State struct {
	// Progress is the line for people; empty where there is none.
	Progress string
	// Outcome is nil where there is none, or one that can't be read.
	Outcome *contract.GateOutcome
}

// Open takes a descriptor of the gate's folder, which stays the caller's. The
// caller closes the Gate, and soon: an open one keeps the pod from going away.
func Open(dir *os.File, now func() time.Time) (*Gate, error) {
	root, err := beneath.Open(dir, beneath.Options{})
	if err != nil {
		return nil, fmt.Errorf("open the gate's folder: %w", err)
	}

	return &Gate{root: root, now: now}, nil
}

// Close lets go of the folder.
func (g *Gate) Close() error {
	if err := g.root.Close(); err != nil {
		return fmt.Errorf("close the gate's folder: %w", err)
	}

	return nil
}

// Read returns what the files say. A missing file is no error.
func (g *Gate) Read() (State, error) {
	progress, err := g.read(contract.GateProgressFile)
	if err != nil {
		return State{}, err
	}

	content, err := g.read(contract.GateOutcomeFile)
	if err != nil {
		return State{}, err
	}

	state := State{Progress: strings.TrimSuffix(string(progress), "\n")}

	// What can't be read is as good as nothing: it can be written again.
	if outcome, err := contract.DecodeGateOutcome(content); err == nil {
		state.Outcome = &outcome
	}

	return state, nil
}

// SetProgress writes the line of progress. One that says the same is a sign of life. Control characters become spaces, and what is too long is cut off.
func (g *Gate) SetProgress(line string) error {
	return g.replace(contract.GateProgressFile, []byte(oneLine(line)+"\n"))
}

// SetOutcome writes the outcome, unless it stands there already. A failed one
// may be followed by any other, so that a restore can be tried again. Where the
// gate is open, the error for any other outcome wraps ErrFinal.
func (g *Gate) SetOutcome(o contract.GateOutcome) error {
	if o.State != contract.GateOpen && o.State != contract.GateFailed {
		return fmt.Errorf("write the gate's outcome: %w: state %q", contract.ErrRecord, o.State)
	}

	state, err := g.Read()
	if err != nil {
		return err
	}

	if state.Outcome != nil && state.Outcome.State == contract.GateOpen {
		if o.State != contract.GateOpen {
			return fmt.Errorf("write the gate's outcome %q: %w", o.State, ErrFinal)
		}

		return nil
	}

	content, err := o.Encode()
	if err != nil {
		return fmt.Errorf("write the gate's outcome: %w", err)
	}

	return g.write(contract.GateOutcomeFile, content)
}

// read returns the content of a file; nothing where it is missing or no file.
func (g *Gate) read(name string) ([]byte, error) {
	dir := g.root.Dir()

	entry, err := dir.Lookup(name)
	if errors.Is(err, beneath.ErrVanished) {
		return nil, nil
	}

	if err != nil {
		return nil, fmt.Errorf("read the gate's %s: %w", name, err)
	}

	if entry.Kind != beneath.KindRegular {
		return nil, nil
	}

	f, err := dir.OpenFile(entry)
	if err != nil {
		return nil, fmt.Errorf("read the gate's %s: %w", name, err)
	}
	defer func() { _ = f.Close() }()

	content, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, fmt.Errorf("read the gate's %s: %w", name, err)
	}

	return content, nil
}

// write replaces a file in one step, if it says something else.
func (g *Gate) write(name string, content []byte) error {
	old, err := g.read(name)
	if err != nil {
		return err
	}

	if string(old) == string(content) {
		return nil
	}

	return g.replace(name, content)
}

// replace replaces a file in one step.
func (g *Gate) replace(name string, content []byte) error {
	f, err := g.root.Dir().CreateFile(name, int64(len(content)))
	if err != nil {
		return fmt.Errorf("write the gate's %s: %w", name, err)
	}
	defer func() { _ = f.Abort() }()

	if _, err := f.Write(content); err != nil {
		return fmt.Errorf("write the gate's %s: %w", name, err)
	}

	err = f.Commit(beneath.Attrs{
		UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), Mode: fileMode, ModTime: g.now(),
	})
	if err != nil {
		return fmt.Errorf("write the gate's %s: %w", name, err)
	}

	return nil
}

func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}

		return r
	}, strings.TrimSpace(s))

	if len(s) > maxLine {
		s = strings.ToValidUTF8(s[:maxLine], "")
	}

	return s
}
