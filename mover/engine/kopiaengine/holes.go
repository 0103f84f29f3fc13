package kopiaengine

import (
	"bytes"
	"fmt"
	"iter"
	"strconv"

	"github.com/kopia/kopia/snapshot"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	// largestBlock is the most that a file system is believed to allocate at a time, in bytes:
	// those of servers name what they like to be sent instead.
	largestBlock = 4 << 10
	// smallestBlock is the least that any allocates.
	smallestBlock = 512
)

var zeros [largestBlock]byte

// blockOf returns the size of the pieces, in bytes, that are either written or left out.
func blockOf(told int64) int64 {
	if told < smallestBlock || told > largestBlock || told&(told-1) != 0 {
		return largestBlock
	}

	return told
}

// data returns the ranges of p that are not zeros, in whole blocks of the file that p belongs into at
// an offset. What is not a whole block, at either end of p, is judged by itself.
func data(p []byte, at, block int64) iter.Seq2[int, int] {
	return func(yield func(int, int) bool) {
		begun := -1

		for pos := 0; pos < len(p); {
			end := min(pos+int(block-(at+int64(pos))%block), len(p))

			switch zero := bytes.Equal(p[pos:end], zeros[:end-pos]); {
			case !zero && begun < 0:
				begun = pos
			case zero && begun >= 0:
				if !yield(begun, pos) {
					return
				}

				begun = -1
			}

			pos = end
		}

		if begun >= 0 {
			yield(begun, len(p))
		}
	}
}

// allocated returns what a name of a file takes up, in bytes: what is not in the file's holes, a part of it for each of its names.
func allocated(e beneath.Entry) int64 {
	const unit = 512

	if e.Kind != beneath.KindRegular {
		return 0
	}

	return min(e.Size, e.Blocks*unit) / int64(max(e.Nlink, 1))
}

// noteRoom counts it if the snapshot would not fit into the volume that it is of.
func (b *backup) noteRoom(src *source) {
	space, err := b.root.Statfs()
	if err == nil && space.TotalBytes > 0 && b.allocated > space.TotalBytes {
		src.omitted.add(engine.OmittedRoom, fmt.Sprintf("a restore needs %d bytes, and the volume has %d", b.allocated, space.TotalBytes))
	}
}

// signRoom writes on a snapshot what its files took up.
func signRoom(m *snapshot.Manifest, allocated int64) {
	m.Tags[tagPrefix+contract.TagAllocated] = strconv.FormatInt(allocated, 10)
}

// roomOf returns how many bytes a snapshot's files are known to need: what they took up where they
// were, which need not be as much as their sizes. It is 0 where that is not known.
func roomOf(m *snapshot.Manifest) int64 {
	n, err := strconv.ParseInt(m.Tags[tagPrefix+contract.TagAllocated], 10, 64)
	if s := m.RootEntry.DirSummary; err != nil || n < 0 || s == nil || n > s.TotalFileSize {
		return 0
	}

	return n
}
