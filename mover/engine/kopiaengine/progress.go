package kopiaengine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/snapshot/upload"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
)

// counter counts what is done, and tells it now and then.
type counter struct {
	bytes, files, totalBytes, totalFiles atomic.Int64
}

func (c *counter) progress() engine.Progress {
	p := engine.Progress{
		BytesDone:  c.bytes.Load(),
		FilesDone:  c.files.Load(),
		TotalBytes: c.totalBytes.Load(),
		TotalFiles: c.totalFiles.Load(),
	}

	// An estimate that has been passed was wrong; the next best is what is known.
	if p.TotalBytes > 0 || p.TotalFiles > 0 {
		p.TotalBytes, p.TotalFiles = max(p.TotalBytes, p.BytesDone), max(p.TotalFiles, p.FilesDone)
	}

	return p
}

// report calls tell every interval, and also when there is no progress function,
// looks at watch. The function it returns ends it, and waits until it has ended.
func (c *counter) report(interval time.Duration, tell engine.ProgressFunc, watch func()) (end func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})

	go func() {
		defer close(stopped)

		t := time.NewTicker(interval)
		defer t.Stop()

		for {
			select {
			case <-stop:
				return
			case <-t.C:
				watch()

				if tell != nil {
					tell(c.progress())
				}
			}
		}
	}()

	return func() {
		close(stop)
		<-stopped
	}
}

// done reports the progress for the last time, by what is known in the end.
func done(s engine.Summary, tell engine.ProgressFunc) {
	if tell == nil {
		return
	}

	p := engine.Progress{BytesDone: s.Bytes, TotalBytes: s.Bytes, FilesDone: s.Files + s.Symlinks, TotalFiles: s.Files + s.Symlinks}
	tell(p)
}

// uploadProgress hears from kopia what it does. It implements upload.Progress.
type uploadProgress struct {
	upload.NullUploadProgress

	count *counter
	// cancel ends the upload.
	cancel func()

	mu      sync.Mutex
	foreign error
}

// CachedFile implements upload.Progress.
func (p *uploadProgress) CachedFile(_ string, size int64) { p.count.bytes.Add(size) }

// HashedBytes implements upload.Progress.
func (p *uploadProgress) HashedBytes(n int64) { p.count.bytes.Add(n) }

// FinishedFile implements upload.Progress.
func (p *uploadProgress) FinishedFile(string, error) { p.count.files.Add(1) }

// Error implements upload.Progress. Kopia reports failures of the store as failures
// of whatever file it had in hand; to go on would end in a snapshot without it.
func (p *uploadProgress) Error(_ string, err error, _ bool) {
	var ofSource *sourceError
	if errors.As(err, &ofSource) {
		return
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	if p.foreign == nil {
		p.foreign = err
	}

	p.cancel()
}

func (p *uploadProgress) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.foreign
}

// estimate walks the volume for its totals. It looks at what the upload is about
// to look at, so that little of it reaches the disk twice.
func estimate(ctx context.Context, root *beneath.Root, c *counter) {
	var bytes, files int64

	err := measure(ctx, root.Dir(), func(e beneath.Entry) {
		if e.Kind == beneath.KindRegular || e.Kind == beneath.KindSymlink {
			files++
		}

		if e.Kind == beneath.KindRegular {
			bytes += e.Size
		}
	})
	if err != nil {
		return // Nobody needs an estimate of a volume that can't be read.
	}

	c.totalBytes.Store(bytes)
	c.totalFiles.Store(files)
}

// measure shows every entry below d that can be looked at.
func measure(ctx context.Context, d *beneath.Dir, see func(beneath.Entry)) error {
	l, err := d.List()
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // Open for reading.

	for {
		entries, err := l.Next(listed)
		if isEOF(err) {
			return nil
		}

		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}

		for _, e := range entries {
			see(e)

			if err := descend(ctx, d, e, see); err != nil {
				return err
			}
		}
	}
}

func descend(ctx context.Context, d *beneath.Dir, e beneath.Entry, see func(beneath.Entry)) error {
	if e.Kind != beneath.KindDirectory || e.MountPoint {
		return nil
	}

	child, err := d.OpenDir(e)
	if err != nil {
		return nil // It went away, or is for the upload to complain of.
	}
	defer func() { _ = child.Close() }() // Open for reading.

	return measure(ctx, child, see)
}
