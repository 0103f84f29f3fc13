package kopiaengine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// The list of hard links of a snapshot is a header, lines of names and an end, each a line of JSON. It is written as the
// folders are gone through, so that no more of it than one line is in memory; the order of the lines says nothing.
type (
	linkHeader struct {
		Stream  string `json:"stream"`
		Version int    `json:"version"`
	}

	// linkLine has names of one folder whose inodes lie on one device; a folder may have several lines.
	linkLine struct {
		// Folder is the raw path below the root, in base64.
		Folder []byte       `json:"folder"`
		Device uint64       `json:"device,omitempty"`
		Names  []linkedName `json:"names,omitempty"`
		// End is the number of names in the whole list; it stands in the last line only.
		End *int64 `json:"end,omitempty"`
	}

	linkedName struct {
		// Name is raw, in base64.
		Name  []byte `json:"n"`
		Inode uint64 `json:"i"`
	}
)

// linesOf is how many names a line has at most.
const linesOf = 256

// linkWriter writes a list of hard links. It is for any number of goroutines, and does nothing until the first name comes.
type linkWriter struct {
	begin func() object.Writer

	mu    sync.Mutex
	out   object.Writer
	count int64
	err   error
}

func newLinkWriter(ctx context.Context, w repo.RepositoryWriter) *linkWriter {
	return &linkWriter{begin: func() object.Writer {
		return w.NewObjectWriter(ctx, object.WriterOptions{
			Description: "hard links", Compressor: Compressor, MetadataCompressor: Compressor, Splitter: repository.Splitter,
		})
	}}
}

// add writes names of one folder down. The first failure stays for result: it is the store's, and others will meet it too.
func (l *linkWriter) add(folder string, device uint64, names []linkedName) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.err != nil {
		return
	}

	if l.out == nil {
		l.out = l.begin()
		l.line(linkHeader{contract.LinksStream, contract.LinksVersion})
	}

	l.count += int64(len(names))
	l.line(linkLine{Folder: []byte(folder), Device: device, Names: names})
}

func (l *linkWriter) line(v any) {
	text, err := json.Marshal(v)
	if err == nil {
		_, err = l.out.Write(append(text, '\n'))
	}

	l.err = errors.Join(l.err, err)
}

// result ends the list, and returns its object; empty if there are no hard links.
func (l *linkWriter) result() (object.ID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.out == nil {
		return object.EmptyID, nil
	}

	l.line(linkLine{Folder: []byte{}, End: &l.count})

	if l.err != nil {
		return object.EmptyID, fmt.Errorf("write the list of hard links: %w", l.err)
	}

	id, err := l.out.Result()
	if err != nil {
		return object.EmptyID, fmt.Errorf("write the list of hard links: %w", err)
	}

	return id, nil
}

// sign ends the list, and writes on a pass's snapshot, which may be nil, where it is.
func (l *linkWriter) sign(m *snapshot.Manifest) error {
	id, err := l.result()
	if err != nil || m == nil || id == object.EmptyID {
		return err
	}

	m.Tags = map[string]string{linksTag: id.String()}

	return nil
}

// close lets go of what the list needed in memory. After it, nothing may be added.
func (l *linkWriter) close() {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.out != nil {
		_ = l.out.Close() // What is to stay, result has written.
		l.out = nil
	}

	l.err = errUploadOver
}

// linkLines collects the hard links of one folder while it is listed.
type linkLines struct {
	to *linkWriter
	// omitted counts what can't be listed.
	omitted *omissions
	folder  string
	device  uint64
	names   []linkedName
}

func (l *linkLines) add(e beneath.Entry) {
	if e.Kind != beneath.KindRegular || e.Nlink < 2 {
		return
	}

	if len(l.folder) > maxLinkFolder {
		l.omitted.add(engine.OmittedHardLink, join(l.folder, e.Name))

		return
	}

	if e.Dev != l.device || len(l.names) == linesOf {
		l.flush()
	}

	l.device = e.Dev
	l.names = append(l.names, linkedName{Name: []byte(e.Name), Inode: e.Ino})
}

func (l *linkLines) flush() {
	if len(l.names) > 0 {
		l.to.add(l.folder, l.device, l.names)
	}

	l.names = nil
}

// errLinks is what every error about a list of hard links that is not as it should be wraps.
var errLinks = engine.Errorf(engine.CodeRepositoryDamaged, "the snapshot's list of hard links is damaged")

const (
	// maxLinkFolder is how long the path of a folder may be, in bytes, for its hard links to be listed.
	maxLinkFolder = 256 << 10
	// maxLinkLine is more than a line can have, in bytes, with such a folder and the longest names.
	maxLinkLine = 1 << 20
)

// readLinks shows every name of a list, checked; see linkWriter.
func readLinks(r io.Reader, see func(folder string, device uint64, name linkedName) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLinkLine)

	if err := readLinkHeader(lines); err != nil {
		return err
	}

	count := int64(0)

	for lines.Scan() {
		var l linkLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("%w: after %d names: %w", errLinks, count, err)
		}

		if l.End != nil {
			return endOfLinks(lines, l, count)
		}

		for _, n := range l.Names {
			if len(n.Name) == 0 || bytes.ContainsAny(n.Name, "/\x00") {
				return fmt.Errorf("%w: %.80q is no name", errLinks, n.Name)
			}

			if err := see(string(l.Folder), l.Device, n); err != nil {
				return err
			}
		}

		count += int64(len(l.Names))
	}

	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("read the list of hard links: %w", err)
	}

	return fmt.Errorf("%w: it ends after %d names, or in the middle of a line", errLinks, count)
}

func readLinkHeader(lines *bufio.Scanner) error {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return fmt.Errorf("read the list of hard links: %w", err)
		}

		return fmt.Errorf("%w: it is empty", errLinks)
	}

	var h linkHeader
	if err := json.Unmarshal(lines.Bytes(), &h); err != nil || h.Stream != contract.LinksStream {
		return fmt.Errorf("%w: it begins with %.80q", errLinks, lines.Bytes())
	}

	if h.Version != contract.LinksVersion {
		return engine.Errorf(engine.CodeRepositoryDamaged,
			"the snapshot's list of hard links has version %d, this release reads version %d: restore with a newer one", h.Version, contract.LinksVersion)
	}

	return nil
}

func endOfLinks(lines *bufio.Scanner, last linkLine, count int64) error {
	if *last.End != count || len(last.Names) > 0 {
		return fmt.Errorf("%w: it has %d names, and its end says %d", errLinks, count, *last.End)
	}

	if lines.Scan() {
		return fmt.Errorf("%w: it goes on after its end", errLinks)
	}

	return nil
}
