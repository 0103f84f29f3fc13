package enginetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

// Memory is an engine.Engine whose repository is in memory. It reads and writes
// real folders, and takes no precaution against those who change them meanwhile.
type Memory struct {
	now func() time.Time

	mu        sync.Mutex
	made      bool
	count     int
	snapshots []memorySnapshot
}

type memorySnapshot struct {
	engine.Snapshot

	files files
}

var _ engine.Engine = (*Memory)(nil)

// NewMemory makes one without a repository. now gives the times of snapshots.
func NewMemory(now func() time.Time) *Memory { return &Memory{now: now} }

// CreateRepository implements engine.Engine.
func (m *Memory) CreateRepository(ctx context.Context, f engine.Format) error {
	if err := canceled(ctx); err != nil {
		return err
	}

	if f == engine.FormatExisting {
		return m.ready(ctx)
	}

	if f != engine.FormatFast && f != engine.FormatFIPS {
		return engine.Errorf(engine.CodeInvalidRequest, "create repository: unknown format %q", f)
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	m.made = true

	return nil
}

// RotateKey implements engine.Engine. There is no key in memory.
func (m *Memory) RotateKey(ctx context.Context) error { return m.ready(ctx) }

// Backup implements engine.Engine.
func (m *Memory) Backup(ctx context.Context, r engine.BackupRequest, p engine.ProgressFunc) (engine.BackupResult, error) {
	if r.Root == nil || r.Host == "" || r.Path == "" || r.Instance == "" || r.Job == "" {
		return engine.BackupResult{}, engine.Errorf(engine.CodeInvalidRequest, "back up: root, host, path, instance and job are needed")
	}

	if err := m.ready(ctx); err != nil {
		return engine.BackupResult{}, err
	}

	read, err := readFiles(folderPath(r.Root))
	if err != nil {
		return engine.BackupResult{}, engine.Errorf(engine.CodeSourceUnreadable, "back up: %w", err)
	}

	tell(p, read)

	m.mu.Lock()
	defer m.mu.Unlock()

	m.count++

	s := memorySnapshot{files: read, Snapshot: engine.Snapshot{
		ID: fmt.Sprintf("snapshot-%d", m.count), Host: r.Host, Path: r.Path, Time: m.now(), Bytes: read.bytes(), Tags: map[string]string{},
	}}
	maps.Copy(s.Tags, r.Tags)
	s.Tags[contract.TagJob], s.Tags[contract.TagInstance] = r.Job, r.Instance

	incremental := slices.ContainsFunc(m.snapshots, func(o memorySnapshot) bool {
		return o.Host == s.Host && o.Path == s.Path && o.Tags[contract.TagInstance] == r.Instance
	})
	m.snapshots = append(m.snapshots, s)

	return engine.BackupResult{SnapshotID: s.ID, Incremental: incremental, Summary: summary(read)}, nil
}

// Restore implements engine.Engine.
func (m *Memory) Restore(ctx context.Context, r engine.RestoreRequest, p engine.ProgressFunc) (engine.RestoreResult, error) {
	if err := r.Validate(); err != nil {
		return engine.RestoreResult{}, err
	}

	if err := m.ready(ctx); err != nil {
		return engine.RestoreResult{}, err
	}

	if r.Keeps() {
		if full := vacant(engine.RestoreRequest{Root: r.Root}); full != nil {
			return engine.RestoreResult{Kept: []string{"data"}}, nil //nolint:nilerr // That there is data is what is asked.
		}
	}

	s, res, err := m.choose(r)
	if err != nil {
		return engine.RestoreResult{}, err
	}

	if err := r.Continues(res.SnapshotID); err != nil {
		return engine.RestoreResult{}, err
	}

	if err := vacant(r); err != nil || s == nil {
		return res, err
	}

	if r.BeforeWrite != nil {
		if err := r.BeforeWrite(ctx, s.ID); err != nil {
			return engine.RestoreResult{}, err
		}
	}

	if r.Existing == engine.ExistingMirror {
		if err := s.files.removeOthers(folderPath(r.Root)); err != nil {
			return engine.RestoreResult{}, engine.Errorf(engine.CodeTargetUnwritable, "restore: %w", err)
		}
	}

	if err := s.files.write(folderPath(r.Root)); err != nil {
		return engine.RestoreResult{}, engine.Errorf(engine.CodeTargetUnwritable, "restore: %w", err)
	}

	tell(p, s.files)

	res.Summary = summary(s.files)

	return res, nil
}

// choose returns the snapshot to restore, nil where the volume stays as it is, and a result without its summary.
func (m *Memory) choose(r engine.RestoreRequest) (*memorySnapshot, engine.RestoreResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()

	var unlike string

	for _, s := range slices.Backward(m.snapshots) {
		if s.Tags[contract.TagJob] != r.Job {
			continue
		}

		d := s.Unlike(r.Expect)
		if d == "" {
			return &s, engine.RestoreResult{SnapshotID: s.ID}, nil
		}

		if unlike == "" {
			unlike = fmt.Sprintf("snapshot %s of job %q is not the one expected: %s", s.ID, r.Job, d)
		}
	}

	if unlike != "" {
		return nil, engine.RestoreResult{}, engine.Errorf(engine.CodeSnapshotNotFound, "restore: %s", unlike)
	}

	missing := fmt.Sprintf("no snapshot of job %q", r.Job)

	if r.OnMissing == engine.MissingEmpty {
		return nil, engine.RestoreResult{Missing: missing}, nil
	}

	if r.OnMissing == engine.MissingPrevious {
		for _, s := range slices.Backward(m.snapshots) {
			if r.Previous.Fits(s.Snapshot) {
				return &s, engine.RestoreResult{SnapshotID: s.ID, Missing: missing, Instead: &s.Snapshot}, nil
			}
		}
	}

	return nil, engine.RestoreResult{}, engine.Errorf(engine.CodeSnapshotNotFound, "restore: %s", missing)
}

// Forget implements engine.Engine.
func (m *Memory) Forget(ctx context.Context, r engine.ForgetRequest) (engine.ForgetResult, error) {
	if r.Job == "" {
		return engine.ForgetResult{}, engine.Errorf(engine.CodeInvalidRequest, "forget: no job is named")
	}

	if err := m.ready(ctx); err != nil {
		return engine.ForgetResult{}, err
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	before := len(m.snapshots)
	m.snapshots = slices.DeleteFunc(m.snapshots, func(s memorySnapshot) bool {
		return s.Tags[contract.TagJob] == r.Job && s.Unlike(r.Expect) == ""
	})

	return engine.ForgetResult{Deleted: before - len(m.snapshots)}, nil
}

// Snapshots implements engine.Engine.
func (m *Memory) Snapshots(ctx context.Context) ([]engine.Snapshot, error) {
	if err := m.ready(ctx); err != nil {
		return nil, err
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	list := make([]engine.Snapshot, 0, len(m.snapshots))
	for _, s := range m.snapshots {
		list = append(list, s.Snapshot)
	}

	return list, nil
}

func (m *Memory) ready(ctx context.Context) error {
	if err := canceled(ctx); err != nil {
		return err
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	if !m.made {
		return &engine.Error{Code: engine.CodeRepositoryNotFound, Err: errors.New("there is no repository")}
	}

	return nil
}

func canceled(ctx context.Context) error {
	if ctx.Err() != nil {
		return engine.Errorf(engine.CodeCanceled, "not begun: %w", context.Cause(ctx))
	}

	return nil
}

func summary(f files) engine.Summary {
	s := engine.Summary{Bytes: f.bytes()}
	s.Files, s.Directories, s.Symlinks = f.count()

	return s
}

func tell(p engine.ProgressFunc, f files) {
	if p == nil {
		return
	}

	s := summary(f)
	p(engine.Progress{TotalBytes: s.Bytes, TotalFiles: s.Files + s.Symlinks})
	p(engine.Progress{BytesDone: s.Bytes, TotalBytes: s.Bytes, FilesDone: s.Files + s.Symlinks, TotalFiles: s.Files + s.Symlinks})
}
