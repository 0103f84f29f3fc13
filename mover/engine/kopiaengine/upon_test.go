package kopiaengine

import (
	"slices"
	"testing"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
	"github.com/stretchr/testify/assert"
)

func TestWhatABackupBuildsUpon(t *testing.T) {
	// taken is a snapshot of the upload that began at start; the time is also its name.
	taken := func(id string, start, end fs.UTCTimestamp, unfinished string) *snapshot.Manifest {
		return &snapshot.Manifest{ID: manifest.ID(id), StartTime: start, EndTime: end, IncompleteReason: unfinished, RootEntry: &snapshot.DirEntry{}}
	}

	for name, test := range map[string]struct {
		all     []*snapshot.Manifest
		unsound []string
		want    []string
	}{
		"nothing": {},
		"the last whole one": {
			all:  []*snapshot.Manifest{taken("1", 1, 2, ""), taken("3", 3, 4, "")},
			want: []string{"3"},
		},
		"and what was begun since, but not before": {
			all:  []*snapshot.Manifest{taken("1", 1, 2, "canceled"), taken("3", 3, 4, ""), taken("5", 5, 6, "canceled")},
			want: []string{"5", "3"},
		},
		"of uploads the last two": {
			all:  []*snapshot.Manifest{taken("1", 1, 2, "canceled"), taken("3", 3, 4, "canceled"), taken("5", 5, 6, "failed")},
			want: []string{"5", "3"},
		},
		"of one upload what it wrote down last": {
			all: []*snapshot.Manifest{
				taken("1", 1, 2, "canceled"),
				taken("3a", 3, 4, "checkpoint"), taken("3b", 3, 5, "checkpoint"), taken("3c", 3, 6, "canceled"),
			},
			want: []string{"3c", "1"},
		},
		"or before that, where it is not sound": {
			all:     []*snapshot.Manifest{taken("1", 1, 2, ""), taken("3a", 3, 4, "checkpoint"), taken("3b", 3, 5, "checkpoint")},
			unsound: []string{"3b"},
			want:    []string{"3a", "1"},
		},
		"and the whole one before a whole one that is not sound": {
			all:     []*snapshot.Manifest{taken("1", 1, 2, ""), taken("3", 3, 4, "")},
			unsound: []string{"3"},
			want:    []string{"1"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string

			for _, m := range toBuildUpon(test.all, func(m *snapshot.Manifest) bool { return !slices.Contains(test.unsound, string(m.ID)) }) {
				got = append(got, string(m.ID))
			}

			assert.Equal(t, test.want, got)
		})
	}
}
