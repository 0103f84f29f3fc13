package kopiaengine

import (
	"time"

	"github.com/kopia/kopia/snapshot"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/engine"
)

const (
	// settled is how old the times of a file have to be at least for its content to be
	// what it will stay under them. It covers the grain of all clocks that stamp files.
	settled = time.Minute
	// late is how much longer than by its settings a kernel may take to write back.
	late = 25 * time.Second
	// stepped is how far a clock may be set back or forth between two backups.
	stepped = time.Minute
	// astray is how far the clock of another machine that stamps files may be off.
	astray = 15 * time.Minute
)

// stamps says what the times of a volume's files can tell.
type stamps struct {
	// telling: a file whose times are those of an earlier snapshot has its content, too, unless
	// they were so young then that a later write may have left them.
	telling bool
	// settle is how old they have to be, skew by how much a later time may stand for an earlier one.
	settle, skew time.Duration
}

// stampsOf looks at the volume's file system.
func stampsOf(r engine.BackupRequest) stamps {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(r.Root.Fd()), &st); err != nil {
		return stamps{}
	}

	return stampsOn(uint32(st.Type), r.WriteBack)
}

// OCFS2, GFS2, ZFS and bcachefs have their magic numbers in no header of the kernel's interface.
const (
	gfs2Magic     = 0x01161970
	ocfs2Magic    = 0x7461636f
	zfsMagic      = 0x2fc12fc1
	bcachefsMagic = 0xca451a4e
	f2fsMagic     = 0xf2f52010
)

// stampsOn says it of a file system by its magic number. Only those are listed that are known
// to set a file's times at the latest when a page that was written back is stored to again, and
// its change time whenever anything is put in its place. Tmpfs doesn't do the first, SMB servers
// as late as they like, FUSE and 9p as whoever is behind them likes, overlayfs as what is below it.
func stampsOn(magic uint32, writeBack time.Duration) stamps {
	s := stamps{telling: true, settle: max(settled, writeBack+late), skew: stepped}

	switch magic {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, f2fsMagic, zfsMagic, bcachefsMagic:
	case unix.NFS_SUPER_MAGIC, unix.CEPH_SUPER_MAGIC, ocfs2Magic, gfs2Magic:
		s.settle += astray
		s.skew += astray
	default:
		return stamps{}
	}

	return s
}

// window is when a snapshot was taken, as the times of files tell it.
type window struct {
	// start is when the times of a file had to have been set at the latest for its content not to have
	// changed under them since.
	start time.Time
	// end is the latest time that a write may have left of which the snapshot can know.
	end time.Time
}

// windows returns when the snapshots were taken.
func (s stamps) windows(ps []*snapshot.Manifest) []window {
	all := make([]window, 0, len(ps))
	for _, p := range ps {
		w := window{start: p.StartTime.ToTime().Add(-s.settle), end: p.EndTime.ToTime().Add(s.skew)}

		// Somebody may have set a time in the future by hand, and may set it again when it has passed.
		if latest := latestIn(p); latest.After(w.end) {
			w.end = latest
		}

		all = append(all, w)
	}

	return all
}

// latestIn returns the latest time that anything in a snapshot has.
func latestIn(m *snapshot.Manifest) time.Time {
	if m.RootEntry == nil || m.RootEntry.DirSummary == nil {
		return time.Time{}
	}

	return m.RootEntry.DirSummary.MaxModTime.ToTime()
}

// deceives reports whether the snapshot may have an entry with the same size, times, mode
// and owner, and other content.
//
// The entry may have been written while the snapshot was taken, or so shortly before that the
// kernel had not written it back: it sets no time for another store into a page that is still to
// be written. Or something else of the same size and modification time has been put in its place:
// that has another change time, which nobody can choose. What a snapshot took over from an earlier
// one stood the same test there, and its change time has been the same since, so that it needs no
// other.
func (w window) deceives(e beneath.Entry) bool {
	if !e.ChangeTime.After(w.start) {
		return false
	}

	// What was modified later than anything in the snapshot isn't in it, but for a time that kopia
	// can't hold and has wrapped round: only somebody's hand sets one as far ahead.
	return !e.ModTime.After(w.end) || e.ModTime.After(e.ChangeTime)
}
