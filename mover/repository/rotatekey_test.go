package repository_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/format"
	"github.com/kopia/kopia/repo/object"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

var newPassword = strings.Repeat("a1b2c3d4e5f60718", 4)

// renewed returns the settings with the new password, and with the old one as the previous.
func renewed(t *testing.T, s repository.Settings) repository.Settings {
	t.Helper()

	s.Password, s.Previous, s.CacheDir = newPassword, s.Password, filepath.Join(t.TempDir(), "cache")

	return s
}

// oneOf asserts that exactly one of the two passwords opens the repository, and reports whether it is the new one.
func oneOf(t *testing.T, s repository.Settings) bool {
	t.Helper()

	var opens []string

	for _, p := range []string{s.Previous, s.Password} {
		alone := s
		alone.Password, alone.Previous = p, ""

		r, err := repository.Open(t.Context(), alone)
		if err == nil {
			require.NoError(t, r.Close(t.Context()))

			opens = append(opens, p)

			continue
		}

		requireCode(t, engine.CodeWrongKey, err)
	}

	require.Len(t, opens, 1, "one password must open it at every moment, and one alone")

	return opens[0] == s.Password
}

// cut is a storage that is cut off at its n-th change: before it, or after it with the answer lost.
type cut struct {
	blob.Storage

	left  int
	after bool
}

var errCut = errors.New("cut off")

func (c *cut) change(do func() error) error {
	c.left--

	if c.left < 0 {
		return errCut
	}

	if c.left > 0 {
		return do()
	}

	if c.after {
		return errors.Join(do(), errCut)
	}

	return errCut
}

func (c *cut) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	return c.change(func() error { return c.Storage.PutBlob(ctx, id, data, o) })
}

func (c *cut) DeleteBlob(ctx context.Context, id blob.ID) error {
	return c.change(func() error { return c.Storage.DeleteBlob(ctx, id) })
}

func TestARotationThatIsCutOffIsRepeated(t *testing.T) {
	const changes = 2 // kopia.blobcfg is removed, kopia.repository is written

	for name, blobcfg := range map[string]bool{"a repository of ours": false, "one with kopia's second blob": true} {
		for n := 1; n <= changes+1; n++ {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, cut off at change %d, done: %t", name, n, after), func(t *testing.T) {
					old := made(t)
					if !blobcfg {
						require.NoError(t, old.Storage.DeleteBlob(t.Context(), format.KopiaBlobCfgBlobID))
					}

					id := write(t, old, "content")
					s := renewed(t, old)

					broken := s
					broken.Storage = &cut{Storage: s.Storage, left: n, after: after}

					err := repository.RotateKey(t.Context(), broken)
					if n > changes {
						require.NoError(t, err)
					} else {
						require.ErrorIs(t, err, errCut)
					}

					rotated := n > changes || n == changes && after
					assert.Equal(t, rotated, oneOf(t, s))
					assert.Equal(t, "content", read(t, s, id), "who knows both keys reads meanwhile")

					second := write(t, s, "written meanwhile")

					require.NoError(t, repository.RotateKey(t.Context(), s))
					require.NoError(t, repository.RotateKey(t.Context(), s), "once more changes nothing")
					assert.True(t, oneOf(t, s))

					s.Previous = ""
					assert.Equal(t, "content", read(t, s, id))
					assert.Equal(t, "written meanwhile", read(t, s, second))
				})
			}
		}
	}
}

func TestTheKeyOfARealRepositoryIsRotated(t *testing.T) {
	old := settings(t)
	require.NoError(t, repository.Create(t.Context(), old, engine.FormatFast))
	id := write(t, old, "content")

	before := opened(t, old).FormatManager()
	s := renewed(t, old)
	require.NoError(t, repository.RotateKey(t.Context(), s))

	s.Previous = ""
	now := opened(t, s).FormatManager()
	assert.Equal(t, before.GetMasterKey(), now.GetMasterKey())
	assert.Equal(t, before.UniqueID(), now.UniqueID())
	assert.Equal(t, "content", read(t, s, id))
	require.NoError(t, repository.Create(t.Context(), s, engine.FormatFast))

	_, err := repository.Open(t.Context(), old)
	requireCode(t, engine.CodeWrongKey, err)
}

func TestWhoHasTheRepositoryOpenLosesNothing(t *testing.T) {
	old := made(t)

	var id object.ID

	require.NoError(t, repo.WriteSession(t.Context(), opened(t, old), repo.WriteSessionOptions{}, func(ctx context.Context, w repo.RepositoryWriter) error {
		require.NoError(t, repository.RotateKey(ctx, renewed(t, old)))

		o := w.NewObjectWriter(ctx, object.WriterOptions{})
		_, err := o.Write([]byte("written with the old password"))
		require.NoError(t, err)

		id, err = o.Result()

		return errors.Join(err, o.Close())
	}))

	s := renewed(t, old)
	s.Previous = ""
	assert.Equal(t, "written with the old password", read(t, s, id))
}

// kopia looks at the format again after 15 minutes.
func TestWhoHasTheRepositoryOpenForLongIsToldOfTheKey(t *testing.T) {
	old := made(t)

	var ahead atomic.Int64

	old.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	r := opened(t, old)
	require.NoError(t, repository.RotateKey(t.Context(), renewed(t, old)))

	_, err := r.FormatManager().GetMutableParameters(t.Context())
	require.NoError(t, err)

	ahead.Store(int64(16 * time.Minute))

	_, err = r.FormatManager().GetMutableParameters(t.Context())
	requireCode(t, engine.CodeWrongKey, repository.Explain(t.Context(), old.Storage, engine.CodeInternal, err))
}

// meanwhile is a storage in which something happens before the n-th look at kopia.repository.
type meanwhile struct {
	blob.Storage

	left int
	do   func()
}

func (m *meanwhile) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if id == format.KopiaRepositoryBlobID {
		if m.left--; m.left == 0 {
			m.do()
		}
	}

	return m.Storage.GetBlob(ctx, id, offset, length, out)
}

func TestARotationBetweenTwoTriesIsNoWrongKey(t *testing.T) {
	old := made(t)
	s := renewed(t, old)

	// The first try finds the old key, and the second one the new one.
	s.Storage = &meanwhile{Storage: old.Storage, left: 2, do: func() { require.NoError(t, repository.RotateKey(t.Context(), renewed(t, old))) }}
	opened(t, s)
}

func TestARotationThatCannotBeIsRefused(t *testing.T) {
	old := made(t)

	s := renewed(t, old)
	s.Previous = ""
	requireCode(t, engine.CodeInvalidRequest, repository.RotateKey(t.Context(), s))

	s = renewed(t, old)
	s.Previous = strings.Repeat("x", 64)
	requireCode(t, engine.CodeWrongKey, repository.RotateKey(t.Context(), s))
	opened(t, old)

	empty := renewed(t, settings(t))
	requireCode(t, engine.CodeRepositoryNotFound, repository.RotateKey(t.Context(), empty))
}

// unlocked is a storage that does not heed retentions.
type unlocked struct{ blob.Storage }

func (u unlocked) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, _ blob.PutOptions) error {
	return u.Storage.PutBlob(ctx, id, data, blob.PutOptions{})
}

func TestASettingThatWouldBeLostKeepsTheKey(t *testing.T) {
	st, err := filesystem.New(t.Context(), &filesystem.Options{Path: t.TempDir()}, true)
	require.NoError(t, err)

	old := repository.Settings{Storage: unlocked{st}, Password: password, CacheDir: filepath.Join(t.TempDir(), "cache")}
	require.NoError(t, repo.Initialize(t.Context(), old.Storage, &repo.NewRepositoryOptions{
		BlockFormat:   format.ContentFormat{EnablePasswordChange: true},
		RetentionMode: blob.Compliance, RetentionPeriod: 24 * time.Hour,
	}, password))

	requireCode(t, engine.CodeInvalidRequest, repository.RotateKey(t.Context(), renewed(t, old)))
	opened(t, old)
}
