package kopiaengine

import (
	"context"
	"testing"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// session is one whose object writers count what they are asked for.
type session struct {
	repo.RepositoryWriter

	calls int
}

func (s *session) NewObjectWriter(context.Context, object.WriterOptions) object.Writer {
	return &counting{of: s}
}

type counting struct {
	object.Writer

	of *session
}

func (c *counting) Write(p []byte) (int, error) {
	c.of.calls++

	return len(p), nil
}

func (c *counting) Checkpoint() (object.ID, error) {
	c.of.calls++

	return object.EmptyID, nil
}

func (c *counting) Result() (object.ID, error) {
	c.of.calls++

	return object.EmptyID, nil
}

func TestALateCheckpointWritesToNoClosedSession(t *testing.T) {
	s := &session{}
	w := newUploadWriter(s, 0)
	early := w.NewObjectWriter(t.Context(), object.WriterOptions{})

	n, err := early.Write([]byte("abc"))
	require.NoError(t, err)
	assert.Equal(t, 3, n)

	_, err = early.Checkpoint()
	require.NoError(t, err)
	require.Equal(t, 2, s.calls)

	w.shut()

	for _, o := range []object.Writer{early, w.NewObjectWriter(t.Context(), object.WriterOptions{})} {
		_, err = o.Write([]byte("abc"))
		require.ErrorIs(t, err, errUploadOver)

		_, err = o.Checkpoint()
		require.ErrorIs(t, err, errUploadOver)

		_, err = o.Result()
		require.ErrorIs(t, err, errUploadOver)
	}

	assert.Equal(t, 2, s.calls)
}
