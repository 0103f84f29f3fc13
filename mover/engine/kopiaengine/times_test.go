package kopiaengine

import (
	"testing"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/snapshot"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
)

func TestWhatTheTimesOfAFileSystemTell(t *testing.T) {
	for name, test := range map[string]struct {
		magic     uint32
		writeBack time.Duration
		want      stamps
	}{
		"ext4":                            {unix.EXT4_SUPER_MAGIC, 35 * time.Second, stamps{true, time.Minute, time.Minute}},
		"xfs, of a kernel that is silent": {unix.XFS_SUPER_MAGIC, 0, stamps{true, time.Minute, time.Minute}},
		"btrfs, on a laptop":              {unix.BTRFS_SUPER_MAGIC, 20 * time.Minute, stamps{true, 20*time.Minute + late, time.Minute}},
		"nfs":                             {unix.NFS_SUPER_MAGIC, 35 * time.Second, stamps{true, 16 * time.Minute, 16 * time.Minute}},
		"tmpfs":                           {unix.TMPFS_MAGIC, 35 * time.Second, stamps{}},
		"ramfs":                           {unix.RAMFS_MAGIC, 35 * time.Second, stamps{}},
		"fuse":                            {unix.FUSE_SUPER_MAGIC, 35 * time.Second, stamps{}},
		"smb":                             {unix.SMB2_SUPER_MAGIC, 35 * time.Second, stamps{}},
		"9p":                              {unix.V9FS_MAGIC, 35 * time.Second, stamps{}},
		"overlayfs":                       {unix.OVERLAYFS_SUPER_MAGIC, 35 * time.Second, stamps{}},
		"one of the future":               {0x12345678, 35 * time.Second, stamps{}},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, stampsOn(test.magic, test.writeBack)) })
	}
}

func TestWhichEntriesOfASnapshotMayDeceive(t *testing.T) {
	s := stampsOn(unix.EXT4_SUPER_MAGIC, 35*time.Second)
	start := time.Date(2026, 3, 1, 4, 0, 0, 0, time.UTC)
	m := &snapshot.Manifest{StartTime: fs.UTCTimestampFromTime(start), EndTime: fs.UTCTimestampFromTime(start.Add(time.Hour))}

	ahead := *m
	ahead.RootEntry = &snapshot.DirEntry{DirSummary: &fs.DirectorySummary{MaxModTime: fs.UTCTimestampFromTime(start.AddDate(0, 0, 2))}}

	windows := s.windows([]*snapshot.Manifest{m, &ahead})
	require.Len(t, windows, 2)

	long, after := start.Add(-24*time.Hour), start.Add(5*time.Hour)

	for name, test := range map[string]struct {
		modified, changed time.Time
		want              bool
	}{
		"one that is old":                             {long, long, false},
		"one written two minutes before":              {start.Add(-2 * time.Minute), start.Add(-2 * time.Minute), false},
		"one written half a minute before":            {start.Add(-30 * time.Second), start.Add(-30 * time.Second), true},
		"one written while it was taken":              {start.Add(time.Minute), start.Add(time.Minute), true},
		"one written afterwards is not in it":         {after, after, false},
		"one by a clock that was set back":            {start.Add(time.Hour + 30*time.Second), start.Add(time.Hour + 30*time.Second), true},
		"one with an old time, put there later":       {long, after, true},
		"one with a time of the future, set long ago": {start.AddDate(100, 0, 0), long, false},
		"one with a time of the future, set since":    {start.AddDate(100, 0, 0), after, true},
		"one whose mode was set while it was taken":   {long, start.Add(time.Minute), true},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, windows[0].deceives(beneath.Entry{ModTime: test.modified, ChangeTime: test.changed}))
		})
	}

	t.Run("one that was given again, later, a time that was of the future in the snapshot", func(t *testing.T) {
		set := beneath.Entry{ModTime: start.AddDate(0, 0, 2), ChangeTime: start.AddDate(0, 0, 3)}
		assert.True(t, windows[1].deceives(set))

		set.ModTime = set.ModTime.Add(time.Second)
		assert.False(t, windows[1].deceives(set), "nothing in the snapshot is as late")
	})
}
