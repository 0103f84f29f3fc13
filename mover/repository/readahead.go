package repository

import (
	"context"
	"fmt"
	"sync"

	"github.com/kopia/kopia/repo/blob"
)

const (
	// segment is what is fetched of a pack, in bytes, when several pieces of it are
	// wanted; segments is how many are kept.
	segment  = 4 << 20
	segments = 8
	// single is how many pieces of a pack are fetched by themselves before it is
	// believed that more will be wanted.
	single = 2
	// large is the size of a piece, in bytes, that is worth a request of its own.
	large = segment / 2
	// extravagance is by how much what is fetched may exceed what was wanted, and
	// grace what is fetched, in bytes, before that is looked at.
	extravagance = 4
	grace        = segments * segment
)

// readAhead is a storage for one who reads many small pieces of packs, mostly in
// the order in which they were written, as a restore does. Without it each small
// file is a request, and with kopia's cache each is a file on disk and an fsync
// besides: 30,000 files took four times as long.
type readAhead struct {
	blob.Storage

	mu      sync.Mutex
	packs   map[blob.ID]*pack
	kept    map[place]*piece
	clock   int64
	wanted  int64
	fetched int64
}

type pack struct {
	length int64
	misses int
}

// place names a segment of a pack by its number.
type place struct {
	id blob.ID
	n  int64
}

type piece struct {
	ready chan struct{} // closed when data or err is there
	data  []byte
	err   error
	used  int64
}

func newReadAhead(st blob.Storage) *readAhead {
	return &readAhead{Storage: st, packs: map[blob.ID]*pack{}, kept: map[place]*piece{}}
}

// GetBlob serves small pieces of packs from segments, and passes on the rest.
func (r *readAhead) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	first, last := offset/segment, (offset+length-1)/segment
	if id == "" || id[0] != 'p' && id[0] != 'q' || length <= 0 || length >= large || first != last || offset < 0 {
		return r.Storage.GetBlob(ctx, id, offset, length, out)
	}

	p, mine := r.look(place{id, first}, length)
	if p == nil {
		return r.Storage.GetBlob(ctx, id, offset, length, out)
	}

	if mine {
		p.data, p.err = r.fetch(ctx, id, first)
		close(p.ready)
	}

	select {
	case <-p.ready:
	case <-ctx.Done():
		return ctx.Err()
	}

	from := offset - first*segment
	if p.err != nil || from+length > int64(len(p.data)) {
		// Whoever fetched it may have been cancelled, and the error be none of ours.
		r.drop(place{id, first}, p)

		return r.Storage.GetBlob(ctx, id, offset, length, out)
	}

	out.Reset()

	if _, err := out.Write(p.data[from : from+length]); err != nil {
		return fmt.Errorf("hand on %s: %w", id, err)
	}

	return nil
}

// look finds the segment, or makes a place for it that the caller has to fill; nil
// if the piece is to be fetched by itself.
func (r *readAhead) look(at place, length int64) (p *piece, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.clock++
	r.wanted += length

	if p := r.kept[at]; p != nil {
		p.used = r.clock

		return p, false
	}

	if r.packs[at.id] == nil {
		r.packs[at.id] = &pack{length: -1}
	}

	r.packs[at.id].misses++

	if r.packs[at.id].misses <= single || r.fetched > grace && r.fetched > extravagance*r.wanted {
		r.fetched += length

		return nil, false
	}

	if len(r.kept) >= segments {
		r.evict()
	}

	p = &piece{ready: make(chan struct{}), used: r.clock}
	r.kept[at] = p
	r.fetched += segment

	return p, true
}

// evict forgets the segment that was not used for the longest time. Those who wait
// for it have it still.
func (r *readAhead) evict() {
	var (
		oldest place
		used   int64
	)

	for at, p := range r.kept {
		if used == 0 || p.used < used {
			oldest, used = at, p.used
		}
	}

	delete(r.kept, oldest)
}

func (r *readAhead) drop(at place, p *piece) {
	r.mu.Lock()
	defer r.mu.Unlock()

	if r.kept[at] == p {
		delete(r.kept, at)
	}
}

// forget forgets all segments.
func (r *readAhead) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()

	clear(r.kept)
}

func (r *readAhead) fetch(ctx context.Context, id blob.ID, n int64) ([]byte, error) {
	total, err := r.length(ctx, id)
	if err != nil {
		return nil, err
	}

	size := min(segment, total-n*segment)
	if size <= 0 {
		return nil, fmt.Errorf("fetch segment %d of %s: %w", n, id, blob.ErrInvalidRange)
	}

	b := &buffer{data: make([]byte, 0, size)}
	if err := r.Storage.GetBlob(ctx, id, n*segment, size, b); err != nil {
		return nil, err
	}

	return b.data, nil
}

// length returns the length of a pack, which never changes.
func (r *readAhead) length(ctx context.Context, id blob.ID) (int64, error) {
	r.mu.Lock()
	known := r.packs[id].length
	r.mu.Unlock()

	if known >= 0 {
		return known, nil
	}

	m, err := r.GetMetadata(ctx, id)
	if err != nil {
		return 0, err
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.packs[id].length = m.Length

	return m.Length, nil
}

// buffer implements blob.OutputBuffer.
type buffer struct{ data []byte }

func (b *buffer) Write(p []byte) (int, error) {
	b.data = append(b.data, p...)

	return len(p), nil
}

func (b *buffer) Reset() { b.data = b.data[:0] }

func (b *buffer) Length() int { return len(b.data) }
