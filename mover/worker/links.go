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
	"sync"

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
}

func listPath(r protocol.Request) string { return filepath.Join(r.Cache.Dir, r.Links) }

func newLinkList(path string) (*linkList, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the list of links: %w", err)
	}

	return &linkList{file: f, out: bufio.NewWriter(f)}, nil
}

// add writes a link down. It may be called concurrently.
func (l *linkList) add(a engine.LinkAttributes) error {
	line, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode a link's attributes: %w", err)
	}

	l.mu.Lock()
	defer l.mu.Unlock()

	l.count++

	if _, err := l.out.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write the list of links: %w", err)
	}

	return nil
}

// close closes the list, which is whole then, and gives how many links it has. One that nobody needs is removed.
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

	list, err := newLinkList(listPath(j.request))
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

	lines := json.NewDecoder(bufio.NewReader(list))

	omitted, err := set(ctx, os.NewFile(protocol.VolumeFD, "volume"), r.LeaveOut, func() (engine.LinkAttributes, error) {
		var a engine.LinkAttributes
		if err := lines.Decode(&a); err != nil && !errors.Is(err, io.EOF) {
			return a, engine.Errorf(engine.CodeInternal, "read the list of links: %w", err)
		} else if err != nil {
			return a, io.EOF
		}

		return a, nil
	})

	return omitted, errors.Join(err, os.Remove(path))
}
