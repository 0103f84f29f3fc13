package kopiaengine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	kopiacontent "github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sync/errgroup"

	"github.com/estiba-dev/estiba/mover/contract"
)

const (
	// round is the time within which all that a volume's snapshots take over is to be read
	// back once, as far as leastShare and mostShare allow.
	round = 30 * 24 * time.Hour
	// leastShare and mostShare bound what one backup reads back, in bytes, of each kind: packs
	// of files, packs of folders, indexes; shareBlobs, in blobs.
	leastShare = 16 << 20
	mostShare  = 1 << 30
	shareBlobs = 64

	readParallel = 4
)

// kinds are the first letters of the blobs that are read back.
var kinds = [...]string{"p", "q", "x"}

// share is what one backup reads back of one kind.
type share struct {
	bytes int64
	blobs int
}

// shareOf returns what a backup reads back, which begins so long after the one that it takes
// over from.
func shareOf(total int64, since time.Duration) share {
	part := min(max(since.Hours()/round.Hours(), 0), 1)

	return share{bytes: min(max(int64(part*float64(total)), leastShare), mostShare), blobs: shareBlobs}
}

// take chooses blobs in the order of their names, which are random, beginning after the one
// that was read last. At least one is taken.
func (s share) take(sizes map[blob.ID]int64, last blob.ID) []blob.ID {
	ids := slices.Sorted(maps.Keys(sizes))
	from, _ := slices.BinarySearch(ids, last)

	if from < len(ids) && ids[from] == last {
		from++
	}

	var (
		taken []blob.ID
		bytes int64
	)

	for n := range ids {
		id := ids[(from+n)%len(ids)]

		bytes += sizes[id]
		if len(taken) == s.blobs || bytes > s.bytes && len(taken) > 0 {
			break
		}

		taken = append(taken, id)
	}

	return taken
}

// rota is how far round the reading back has come, by kind.
type rota map[string]blob.ID

// rotaOf returns where the backup that a snapshot was made by has stopped. A volume without
// one begins somewhere, each backup elsewhere.
func rotaOf(m *snapshot.Manifest, job string) rota {
	r := rota{}

	if m != nil {
		for id := range strings.SplitSeq(m.Tags[tagPrefix+contract.TagReadBack], ",") {
			if id != "" {
				r[id[:1]] = blob.ID(id)
			}
		}
	}

	sum := sha256.Sum256([]byte(job))

	for _, k := range kinds {
		if r[k] == "" {
			r[k] = blob.ID(k + hex.EncodeToString(sum[:8]))
		}
	}

	return r
}

// String is the value of the tag.
func (r rota) String() string {
	var ids []string

	for _, k := range kinds {
		ids = append(ids, string(r[k]))
	}

	return strings.Join(ids, ",")
}

// readShare reads a share back of what a new snapshot needs and this backup has not written, and
// of the indexes, past all caches. It reports whether something was found damaged, and drops
// that. Where it was, the next call reads as much as one backup may.
func (b *backup) readShare(ctx context.Context, m *snapshot.Manifest, packs map[blob.ID]struct{}) (bool, error) {
	if b.shareRead {
		return false, nil
	}

	sizes := map[string]map[blob.ID]int64{"p": {}, "q": {}, "x": b.looked}

	for id := range packs {
		if kind := string(id[:min(1, len(id))]); kind != "x" && sizes[kind] != nil && !b.written.has(id) {
			sizes[kind][id] = b.packs.there[id]
		}
	}

	if err := b.manifestPacks(ctx, sizes["q"]); err != nil {
		return false, err
	}

	chosen := b.choose(m, sizes)

	broken, err := b.readContents(ctx, append(chosen["p"], chosen["q"]...))
	if err != nil {
		return false, err
	}

	indexes, err := b.readIndexes(ctx, chosen["x"])
	if err != nil {
		return false, err
	}

	b.shareRead = len(broken)+indexes == 0
	b.closer = !b.shareRead

	return b.closer, b.dropBroken(ctx, broken)
}

// manifestPacks adds the packs with the manifests of all snapshots: without them, none is found.
func (b *backup) manifestPacks(ctx context.Context, sizes map[blob.ID]int64) error {
	err := b.rep.ContentReader().IterateContents(ctx, kopiacontent.IterateOptions{Range: index.PrefixRange(manifest.ContentPrefix)},
		func(i kopiacontent.Info) error {
			if !b.written.has(i.PackBlobID) {
				sizes[i.PackBlobID] = b.packs.there[i.PackBlobID]
			}

			return nil
		})
	if err != nil {
		return fmt.Errorf("go through the index of manifests: %w", err)
	}

	return nil
}

// choose chooses what is read back.
func (b *backup) choose(m *snapshot.Manifest, sizes map[string]map[blob.ID]int64) map[string][]blob.ID {
	since := round

	if b.parent != nil && !b.closer {
		since = m.StartTime.ToTime().Sub(b.parent.StartTime.ToTime())
	}

	chosen := map[string][]blob.ID{}

	for _, k := range kinds {
		total := int64(0)
		for _, n := range sizes[k] {
			total += n
		}

		chosen[k] = shareOf(total, since).take(sizes[k], b.rota[k])
		if n := len(chosen[k]); n > 0 {
			b.rota[k] = chosen[k][n-1]
		}
	}

	return chosen
}

// readContents reads packs back, and returns which contents in them are damaged.
func (b *backup) readContents(ctx context.Context, packs []blob.ID) (map[kopiacontent.ID]blob.ID, error) {
	contents := map[blob.ID][]kopiacontent.Info{}
	for _, id := range packs {
		contents[id] = nil
	}

	if err := b.rep.ContentReader().IterateContents(ctx, kopiacontent.IterateOptions{}, func(i kopiacontent.Info) error {
		if of, ok := contents[i.PackBlobID]; ok {
			contents[i.PackBlobID] = append(of, i)
		}

		return nil
	}); err != nil {
		return nil, fmt.Errorf("go through the index: %w", err)
	}

	var mu sync.Mutex

	broken := map[kopiacontent.ID]blob.ID{}
	seals := b.rep.Seals()

	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readParallel)

	for pack, of := range contents {
		g.Go(func() error {
			bad, err := seals.Broken(ctx, pack, of)

			mu.Lock()
			defer mu.Unlock()

			for _, i := range bad {
				broken[i.ContentID] = pack
			}

			return err
		})
	}

	return broken, g.Wait()
}

// readIndexes reads indexes back, and has the repository do without the damaged ones. It
// returns how many those are.
func (b *backup) readIndexes(ctx context.Context, ids []blob.ID) (int, error) {
	indexes := make([]blob.Metadata, 0, len(ids))
	for _, id := range ids {
		indexes = append(indexes, blob.Metadata{BlobID: id, Length: b.looked[id]})
	}

	damaged, err := b.rep.CheckIndexes(ctx, indexes)
	if err != nil || len(damaged) == 0 {
		return 0, err
	}

	b.damage.indexes += len(damaged)
	_, err = b.recoverIndex(ctx)

	return len(damaged), err
}
