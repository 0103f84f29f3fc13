package kopiaengine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
)

// source is what the volume has shown of itself in one pass over it. Kopia
// shortens and drops errors on their way; what counts is written down here.
type source struct {
	omitted   omissions
	readBytes atomic.Int64
	// allocated is what the files listed take up, in bytes.
	allocated atomic.Int64
	links     *linkWriter

	// reread are the raw paths that the pass before found changed while it read
	// them; parents are when the snapshots to compare with were taken.
	reread  map[string]struct{}
	parents []window
	// tooMany is called when so much is unreadable that going on is pointless.
	tooMany func()

	mu      sync.Mutex
	unread  []unreadable
	unreadN int64
	// changed are the raw paths of what changed while it was read; leftOut those among them
	// that the pass's snapshot has nothing of.
	changed map[string]struct{}
	leftOut map[string]beneath.Kind
}

type unreadable struct {
	path string
	err  error
}

// newSource makes the record of one pass.
func newSource(reread map[string]struct{}, parents []window, links *linkWriter, tooMany func()) *source {
	return &source{
		reread: reread, parents: parents, links: links, tooMany: tooMany,
		changed: map[string]struct{}{}, leftOut: map[string]beneath.Kind{},
	}
}

// sourceError is what kopia is told of an entry that the source has already
// written down: anything else that it reports is not the volume's fault.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }

func (e *sourceError) Unwrap() error { return e.err }

// fail writes down why an entry could not be read, and returns the error for kopia. The
// entry is not in this pass's snapshot.
func (s *source) fail(path string, kind beneath.Kind, err error) error {
	told := &sourceError{err}

	switch {
	case errors.Is(err, beneath.ErrVanished):
		s.omitted.add(engine.OmittedVanished, path)

		return told
	case errors.Is(err, beneath.ErrMountPoint):
		s.omitted.add(engine.OmittedMount, path)

		return told
	case errors.Is(err, beneath.ErrChanged), errors.Is(err, beneath.ErrKind):
		s.markLeftOut(path, kind)

		return told
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	s.unreadN++

	if len(s.unread) < engine.MaxExamples {
		s.unread = append(s.unread, unreadable{path, err})
	}

	if s.unreadN == engine.MaxExamples {
		s.tooMany()
	}

	return told
}

// err returns the failure of the pass: the entries that could not be read.
func (s *source) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.unreadN == 0 {
		return nil
	}

	errs := make([]error, 0, len(s.unread))
	for _, u := range s.unread {
		errs = append(errs, fmt.Errorf("%s: %w", quote(u.path), u.err))
	}

	atLeast := ""
	if s.unreadN >= engine.MaxExamples {
		atLeast = "at least "
	}

	return engine.Errorf(engine.CodeSourceUnreadable, "back up volume: %s%d entries could not be read: %w", atLeast, s.unreadN, errors.Join(errs...))
}

func (s *source) markChanged(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.changed[path] = struct{}{}
}

// markLeftOut notes that something else has taken an entry's place again and again, so
// that the pass's snapshot has neither.
func (s *source) markLeftOut(path string, kind beneath.Kind) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.changed[path] = struct{}{}
	s.leftOut[path] = kind
}

// settle counts what the last pass found changed: of some the snapshot has what was read
// last, of others nothing. A snapshot without a whole folder is none. It is for after the pass.
func (s *source) settle() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	var folders []error

	for path := range s.changed {
		kind, gone := s.leftOut[path]

		switch {
		case !gone:
			s.omitted.add(engine.OmittedChanged, path)
		case kind != beneath.KindDirectory:
			s.omitted.add(engine.OmittedReplaced, path)
		case len(folders) < engine.MaxExamples:
			folders = append(folders, fmt.Errorf("%s: it was replaced again and again while it was read", quote(path)))
		}
	}

	if len(folders) == 0 {
		return nil
	}

	return engine.Errorf(engine.CodeSourceUnreadable, "back up volume: a folder could not be read: %w", errors.Join(folders...))
}

// changedPaths returns what this pass found changed. It is for after the pass.
func (s *source) changedPaths() map[string]struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.changed
}

// mustRead reports whether a file or a link has to be read although an earlier snapshot
// has one with the same size, time, mode and owner: because it changed under the last
// pass, or because one of the snapshots may have other content. Which of them has it, kopia
// doesn't say.
func (s *source) mustRead(path string, e beneath.Entry) bool {
	if _, ok := s.reread[path]; ok {
		return true
	}

	return slices.ContainsFunc(s.parents, func(w window) bool { return w.deceives(e) })
}

// note counts what a listing shows of an entry that can't be kept with it.
func (s *source) note(path string, e beneath.Entry) {
	if !time.Unix(0, e.ModTime.UnixNano()).Equal(e.ModTime) {
		s.omitted.add(engine.OmittedTimestamp, path)
	}

	// The list of hard links is of files only.
	if e.Kind == beneath.KindSymlink && e.Nlink > 1 {
		s.omitted.add(engine.OmittedHardLink, path)
	}

	if e.Kind != beneath.KindRegular {
		return
	}

	// Below a page, a file system that keeps it in the inode looks the same.
	const page = 4096
	if e.Size >= page && e.Sparse() {
		s.omitted.add(engine.OmittedHoles, path)
	}
}

// noteAttributes counts an entry whose extended attributes are not kept. The label
// of the machine's security module is not the volume's: each node gives its own.
// An attribute that can't be listed hides no data, so it is no failure.
func (s *source) noteAttributes(path string, dir *beneath.Dir, name string) {
	names, _ := dir.Attributes(name)

	if slices.ContainsFunc(names, func(n string) bool { return n != "security.selinux" }) {
		s.omitted.add(engine.OmittedXattr, path)
	}
}
