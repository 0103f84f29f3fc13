package store_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// hung mounts a file system that never answers, as one does whose server is gone.
func hung(t *testing.T) (folder string) {
	t.Helper()

	device, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there is no way to a file system that hangs: %v", err)
	}

	folder = t.TempDir()

	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", device.Fd())
	if err := unix.Mount("hung", folder, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		_ = device.Close()

		t.Skipf("there is no way to a file system that hangs: %v", err)
	}

	t.Cleanup(func() {
		// The end of its server ends all that waits for it.
		_ = device.Close()
		_ = unix.Unmount(folder, unix.MNT_DETACH)
	})

	return folder
}

func TestAFolderThatHangsIsNotWaitedForWithoutEnd(t *testing.T) {
	t.Parallel()

	o := store.Options{StallAfter: 200 * time.Millisecond, Place: "folder of location default"}
	s := settings.Settings{Kind: settings.Filesystem, Path: hung(t)}
	done := make(chan error, 1)

	go func() {
		_, err := store.Open(t.Context(), s, nil, "plugins/estiba/repositories/ns/id", o)
		done <- err
	}()

	select {
	case err := <-done:
		require.Equal(t, engine.CodeStoreStalled, engine.CodeOf(err))
		require.ErrorContains(t, err, "location default")
	case <-time.After(20 * time.Second):
		require.Fail(t, "it hangs")
	}
}
