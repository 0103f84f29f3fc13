package beneath

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// descriptor is a file descriptor that may be closed while others use it: close
// waits for them, so that a number which the kernel gave out anew is never used.
// A method that holds it must not call another one that takes it.
type descriptor struct {
	mu     sync.RWMutex
	fd     int
	closed bool
}

// acquire returns the descriptor until release is called.
func (d *descriptor) acquire() (int, error) {
	d.mu.RLock()
	if d.closed {
		d.mu.RUnlock()
		return -1, os.ErrClosed
	}
	return d.fd, nil
}

func (d *descriptor) release() { d.mu.RUnlock() }

func (d *descriptor) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	return closeFD(d.fd)
}

// closeFD closes fd. Linux has released it also when EINTR is returned.
func closeFD(fd int) error {
	err := noted(&under, func() error { return unix.Close(fd) })
	if err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

// uninterrupted repeats f while a signal interrupts it, which network and FUSE
// file systems let happen. All calls to the volume go through it, or through noted.
func uninterrupted(f func() error) error {
	for {
		if err := noted(&under, f); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
