package worker

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
)

func linkAt(path string) engine.LinkAttributes {
	return engine.LinkAttributes{Path: []byte(path), UID: 1, GID: 2, ModTime: time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)}
}

func readList(t *testing.T, path string) []engine.LinkAttributes {
	t.Helper()

	f, err := os.Open(path)
	require.NoError(t, err)

	defer f.Close()

	var links []engine.LinkAttributes

	for next := eachLink(f); ; {
		a, err := next()
		if err != nil {
			require.ErrorIs(t, err, io.EOF)

			return links
		}

		links = append(links, a)
	}
}

func TestAListOfLinksIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list")
	l, err := newLinkList(path, 1<<20)
	require.NoError(t, err)

	var want []engine.LinkAttributes

	for _, p := range []string{"top", "a/one", "a/two", "a/b/\xff", "a/b/\n", "back", "also", "a/three"} {
		want = append(want, linkAt(p))
		require.NoError(t, l.add(linkAt(p)))
	}

	n, err := l.close(true)
	require.NoError(t, err)
	assert.EqualValues(t, len(want), n)
	assert.Equal(t, want, readList(t, path))
}

// A path is as long as the maker of the volume likes, and the list lies on the node's disk.
func TestAListOfLinksHasABound(t *testing.T) {
	const room = 1 << 20

	path := filepath.Join(t.TempDir(), "list")
	l, err := newLinkList(path, room)
	require.NoError(t, err)

	deep := strings.Repeat("folder/", 20_000)

	for i := range 1000 {
		require.NoError(t, l.add(linkAt(fmt.Sprintf("%s%d", deep, i))), "the folder is written once")
	}

	for i := 0; err == nil; i++ {
		err = l.add(linkAt(fmt.Sprintf("%s%d/link", deep, i)))
	}

	assert.Equal(t, engine.CodeTargetUnwritable, engine.CodeOf(err))
	require.ErrorIs(t, err, unix.EFBIG, "it may be left out, and named, where that is asked for")

	_, err = l.close(true)
	require.NoError(t, err)

	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.LessOrEqual(t, info.Size(), int64(room))
}

// A full disk of the node is no fault of a link, nor of the repository.
func TestAListOfLinksOnAFullDiskEndsTheRestore(t *testing.T) {
	l, err := newLinkList("/dev/full", 1<<20)
	require.NoError(t, err)

	for err == nil {
		err = l.add(linkAt("link"))
	}

	assert.Equal(t, engine.CodeInternal, engine.CodeOf(err))
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, l.file.Close())
}
