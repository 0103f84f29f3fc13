package kopiaengine

import (
	"context"

	"github.com/kopia/kopia/repo/object"
)

// NewObjectWriter returns a writer that writes nothing any more when the upload is over: a
// checkpoint that kopia has begun and doesn't wait for writes folders, and what of files it has
// got, to a session that may be closed by then.
func (w *uploadWriter) NewObjectWriter(ctx context.Context, o object.WriterOptions) object.Writer {
	return &guardedObject{Writer: w.RepositoryWriter.NewObjectWriter(ctx, o), of: w, wrote: func() error { return w.wrote(ctx) }}
}

type guardedObject struct {
	object.Writer

	of *uploadWriter
	// wrote is called when the object is written.
	wrote func() error
}

// Write implements object.Writer.
func (o *guardedObject) Write(p []byte) (n int, err error) {
	err = o.of.during(func() error {
		n, err = o.Writer.Write(p)

		return err
	})

	return n, err
}

// Checkpoint implements object.Writer.
func (o *guardedObject) Checkpoint() (id object.ID, err error) {
	err = o.of.during(func() error {
		id, err = o.Writer.Checkpoint()

		return err
	})

	return id, err
}

// Result implements object.Writer.
func (o *guardedObject) Result() (id object.ID, err error) {
	err = o.of.during(func() error {
		id, err = o.Writer.Result()

		return err
	})
	if err != nil {
		return id, err
	}

	return id, o.wrote()
}

// during does something before the end of the upload, or not at all.
func (w *uploadWriter) during(do func() error) error {
	w.mu.RLock()
	defer w.mu.RUnlock()

	if w.over {
		return errUploadOver
	}

	return do()
}
