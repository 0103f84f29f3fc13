package enginetest

import (
	"context"
	"sync"

	"github.com/estiba-dev/estiba/mover/engine"
)

// Method is a method of engine.Engine.
type Method string

// The methods.
const (
	CreateRepository Method = "CreateRepository"
	RotateKey        Method = "RotateKey"
	Backup           Method = "Backup"
	Restore          Method = "Restore"
	Forget           Method = "Forget"
	Snapshots        Method = "Snapshots"
)

// Call is one call of a method.
type Call struct {
	Method Method
	// N counts the calls of the method from 1.
	N int
}

// Fault decides about a call before it is made: an error ends it. It may block, to
// make a call that hangs; a call whose context is done meanwhile is its own affair.
type Fault func(ctx context.Context, c Call) error

// FailAt returns a Fault that fails the n-th call of a method.
func FailAt(m Method, n int, err error) Fault {
	return func(_ context.Context, c Call) error {
		if c.Method == m && c.N == n {
			return err
		}

		return nil
	}
}

// HangAt returns a Fault that makes the n-th call of a method wait until it is cancelled.
func HangAt(m Method, n int) Fault {
	return func(ctx context.Context, c Call) error {
		if c.Method != m || c.N != n {
			return nil
		}

		<-ctx.Done()

		return engine.Errorf(engine.CodeCanceled, "hang: %w", context.Cause(ctx))
	}
}

// Faulty is an engine.Engine that asks a Fault before each call of another one.
type Faulty struct {
	inner engine.Engine
	fault Fault

	mu    sync.Mutex
	calls map[Method]int
}

var _ engine.Engine = (*Faulty)(nil)

// NewFaulty wraps an engine.
func NewFaulty(inner engine.Engine, fault Fault) *Faulty {
	return &Faulty{inner: inner, fault: fault, calls: map[Method]int{}}
}

// Calls returns how often a method was called.
func (f *Faulty) Calls(m Method) int {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.calls[m]
}

func (f *Faulty) ask(ctx context.Context, m Method) error {
	f.mu.Lock()
	f.calls[m]++
	c := Call{m, f.calls[m]}
	f.mu.Unlock()

	return f.fault(ctx, c)
}

// CreateRepository implements engine.Engine.
func (f *Faulty) CreateRepository(ctx context.Context, format engine.Format) error {
	if err := f.ask(ctx, CreateRepository); err != nil {
		return err
	}

	return f.inner.CreateRepository(ctx, format)
}

// RotateKey implements engine.Engine.
func (f *Faulty) RotateKey(ctx context.Context) error {
	if err := f.ask(ctx, RotateKey); err != nil {
		return err
	}

	return f.inner.RotateKey(ctx)
}

// Backup implements engine.Engine.
func (f *Faulty) Backup(ctx context.Context, r engine.BackupRequest, p engine.ProgressFunc) (engine.BackupResult, error) {
	if err := f.ask(ctx, Backup); err != nil {
		return engine.BackupResult{}, err
	}

	return f.inner.Backup(ctx, r, p)
}

// Restore implements engine.Engine.
func (f *Faulty) Restore(ctx context.Context, r engine.RestoreRequest, p engine.ProgressFunc) (engine.RestoreResult, error) {
	if err := f.ask(ctx, Restore); err != nil {
		return engine.RestoreResult{}, err
	}

	return f.inner.Restore(ctx, r, p)
}

// Forget implements engine.Engine.
func (f *Faulty) Forget(ctx context.Context, r engine.ForgetRequest) (engine.ForgetResult, error) {
	if err := f.ask(ctx, Forget); err != nil {
		return engine.ForgetResult{}, err
	}

	return f.inner.Forget(ctx, r)
}

// Snapshots implements engine.Engine.
func (f *Faulty) Snapshots(ctx context.Context) ([]engine.Snapshot, error) {
	if err := f.ask(ctx, Snapshots); err != nil {
		return nil, err
	}

	return f.inner.Snapshots(ctx)
}
