package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/worker/protocol"
)

// linkList is where a restore leaves the attributes of symbolic links. It may not set them itself: a link is
// reached by a path or by an O_PATH descriptor only, and who may change attributes by those may change any file's, past Landlock.
// Another worker does it that reads nothing but the list.
type linkList struct {
	mu    sync.Mutex
	file  *os.File
	out   *bufio.Writer
	count int64
	// room is what may still be written, in bytes.
	room int64
	// folder is that of the link written last.
	folder string
}

// maxLinkList is how long a list may become, in bytes: it lies beside the caches, and a path may be as long as the maker
// of the volume likes. Millions of links have room in it.
const maxLinkList = 1 << 30

// linkLine is one link in the list.
type linkLine struct {
	// Folder that the link is in, as raw bytes; nil where it is that of the line before.
	Folder *[]byte `json:"folder,omitempty"`
	// Name in the folder, as raw bytes.
	Name    []byte    `json:"name"`
	UID     uint32    `json:"uid"`
	GID     uint32    `json:"gid"`
	ModTime time.Time `json:"modTime"`
}

func listPath(r protocol.Request) string { return filepath.Join(r.Cache.Dir, r.Links) }

func newLinkList(path string, room int64) (*linkList, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the list of links: %w", err)
	}

	return &linkList{file: f, out: bufio.NewWriter(f), room: room}, nil
}

// add writes a link down. It may be called concurrently.
func (l *linkList) add(a engine.LinkAttributes) error {
	l.mu.Lock()
	defer l.mu.Unlock()

	in, name := splitLink(string(a.Path))
	next := linkLine{Name: []byte(name), UID: a.UID, GID: a.GID, ModTime: a.ModTime}

	if in != l.folder {
		folder := []byte(in)
		next.Folder = &folder
	}

	line, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("encode a link's attributes: %w", err)
	}

	if l.room -= int64(len(line)) + 1; l.room < 0 {
		return engine.Errorf(engine.CodeTargetUnwritable,
			"set the attributes of link %.256q: the list of links, with their paths, has no room for more: %w", a.Path, unix.EFBIG)
	}

	// Without a code it would pass for damage of the repository, which a restore may be told to leave out.
	if _, err := l.out.Write(append(line, '\n')); err != nil {
		return engine.Errorf(engine.CodeInternal, "write the list of links: %w; the daemon's cache folder must have room for it", err)
	}

	l.count++
	l.folder = in

	return nil
}

// splitLink splits a path into the folder, which is empty for the root, and the name in it.
func splitLink(path string) (folder, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}

	return "", path
}

// close closes the list, which is whole then, and returns how many links it has. One that nobody needs is removed.
func (l *linkList) close(needed bool) (int64, error) {
	err := errors.Join(l.out.Flush(), l.file.Close())
	if !needed || l.count == 0 {
		err = errors.Join(err, os.Remove(l.file.Name()))
	}

	if err != nil {
		return 0, fmt.Errorf("write the list of links: %w", err)
	}

	return l.count, nil
}

// restore runs the engine, and leaves the links' attributes in the list where there is to be one.
func (j job) restore(ctx context.Context) (protocol.Result, error) {
	q := *j.request.Restore
	q.Root = os.NewFile(protocol.VolumeFD, "volume")
	q.BeforeWrite = j.permit.ask

	if j.request.Links == "" {
		result, err := j.engine.Restore(ctx, q, j.progress.take)
		j.progress.flush()

		return protocol.Result{Restore: &result}, err
	}

	list, err := newLinkList(listPath(j.request), maxLinkList)
	if err != nil {
		return protocol.Result{}, err
	}

	q.LinkAttributes = list.add

	result, err := j.engine.Restore(ctx, q, j.progress.take)
	j.progress.flush()

	links, closeErr := list.close(err == nil)

	return protocol.Result{Restore: &result, Links: links}, errors.Join(err, closeErr)
}

// SetLinks sets the attributes of the symbolic links that the function gives, one after the other and io.EOF after the
// last. Where it is to leave out what can't be set, it gives that back.
type SetLinks func(ctx context.Context, root *os.File, leaveOut bool, next func() (engine.LinkAttributes, error)) ([]engine.Omission, error)

// setLinks does the rest of a restore. It returns when ctx is done, also where the volume doesn't answer.
func setLinks(ctx context.Context, r protocol.Request, set SetLinks) (protocol.Result, error) {
	type outcome struct {
		omitted []engine.Omission
		err     error
	}

	done := make(chan outcome, 1)

	go func() {
		omitted, err := readLinks(ctx, r, set)
		done <- outcome{omitted, err}
	}()

	select {
	case o := <-done:
		return protocol.Result{Restore: &engine.RestoreResult{Summary: engine.Summary{Omissions: o.omitted}}}, o.err
	case <-ctx.Done():
		return protocol.Result{}, engine.Errorf(engine.CodeCanceled, "set the attributes of links: %w", context.Cause(ctx))
	}
}

// readLinks reads the list, has it carried out, and removes it.
func readLinks(ctx context.Context, r protocol.Request, set SetLinks) ([]engine.Omission, error) {
	path := listPath(r)

	list, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the list of links: %w", err)
	}
	defer func() { _ = list.Close() }() // Open for reading.

	omitted, err := set(ctx, os.NewFile(protocol.VolumeFD, "volume"), r.LeaveOut, eachLink(list))

	return omitted, errors.Join(err, os.Remove(path))
}

// eachLink returns a function that gives one link of a list after the other, and io.EOF after the last.
func eachLink(list io.Reader) func() (engine.LinkAttributes, error) {
	lines, folder := json.NewDecoder(bufio.NewReader(list)), ""

	return func() (engine.LinkAttributes, error) {
		var l linkLine
		if err := lines.Decode(&l); err != nil && !errors.Is(err, io.EOF) {
			return engine.LinkAttributes{}, engine.Errorf(engine.CodeInternal, "read the list of links: %w", err)
		} else if err != nil {
			return engine.LinkAttributes{}, io.EOF
		}

		if l.Folder != nil {
			folder = string(*l.Folder)
		}

		path := string(l.Name)
		if folder != "" {
			path = folder + "/" + path
		}

		return engine.LinkAttributes{Path: []byte(path), UID: l.UID, GID: l.GID, ModTime: l.ModTime}, nil
	}
}
