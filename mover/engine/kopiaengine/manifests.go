package kopiaengine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// tagPrefix is what kopia's own command puts before the tags of snapshots, so that
// `kopia snapshot list --tags` finds ours.
const tagPrefix = "tag:"

// pin keeps kopia's retention from a snapshot, whoever runs it on the repository.
const pin = "estiba"

// kopiaTags returns the tags as kopia keeps them. Job and instance, by which
// snapshots are found, come from the request itself.
func kopiaTags(r engine.BackupRequest) map[string]string {
	tags := make(map[string]string, len(r.Tags)+2)
	for k, v := range r.Tags {
		tags[tagPrefix+k] = v
	}

	tags[tagPrefix+contract.TagJob] = r.Job
	tags[tagPrefix+contract.TagInstance] = r.Instance

	return tags
}

func sourceOf(r engine.BackupRequest) snapshot.SourceInfo {
	return snapshot.SourceInfo{Host: r.Host, UserName: contract.SnapshotUser, Path: r.Path}
}

// find loads the snapshot manifests with all the labels given. One that can't be
// loaded is an error: to leave it out would make it look forgotten.
func find(ctx context.Context, rep repo.Repository, labels map[string]string) ([]*snapshot.Manifest, error) {
	ids, err := findIDs(ctx, rep, labels)
	if err != nil {
		return nil, err
	}

	found := make([]*snapshot.Manifest, 0, len(ids))

	for _, id := range ids {
		m, err := snapshot.LoadSnapshot(ctx, rep, id)
		if err != nil {
			return nil, fmt.Errorf("load snapshot %s: %w", id, err)
		}

		found = append(found, m)
	}

	if len(found) == 0 {
		return nil, unlisted(rep)
	}

	return found, nil
}

// unlisted is an error where the repository can't tell which snapshots it has: none that was
// found is none that there is.
func unlisted(rep repo.Repository) error {
	if r, ok := rep.(*repository.Repository); ok && r.Unlisted() > 0 {
		return engine.Errorf(engine.CodeRepositoryDamaged,
			"%d contents with the list of snapshots can't be read: bring the packs (blobs q…) back from versions or a replica of the bucket", r.Unlisted())
	}

	return nil
}

func findIDs(ctx context.Context, rep repo.Repository, labels map[string]string) ([]manifest.ID, error) {
	all := map[string]string{manifest.TypeLabelKey: snapshot.ManifestType}
	maps.Copy(all, labels)

	entries, err := rep.FindManifests(ctx, all)
	if err != nil {
		return nil, fmt.Errorf("find snapshots: %w", err)
	}

	ids := make([]manifest.ID, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.ID)
	}

	return ids, nil
}

// jobLabels returns the labels of the manifests of a job that have the tags expected.
func jobLabels(job string, expect map[string]string) map[string]string {
	labels := make(map[string]string, len(expect)+1)
	for k, v := range expect {
		labels[tagPrefix+k] = v
	}

	labels[tagPrefix+contract.TagJob] = job

	return labels
}

// sidecarLabels is jobLabels for the manifests of what lies beside the snapshots.
func sidecarLabels(job string, expect map[string]string) map[string]string {
	labels := jobLabels(job, expect)
	delete(labels, tagPrefix+contract.TagJob)

	labels[tagPrefix+contract.TagSidecarOf] = job

	return labels
}

func chainLabels(r engine.BackupRequest) map[string]string {
	return map[string]string{
		snapshot.HostnameLabel:           r.Host,
		snapshot.UsernameLabel:           contract.SnapshotUser,
		snapshot.PathLabel:               r.Path,
		tagPrefix + contract.TagInstance: r.Instance,
	}
}

func complete(m *snapshot.Manifest) bool { return m.IncompleteReason == "" && m.RootEntry != nil }

// newest sorts manifests, the one begun last first.
func newest(ms []*snapshot.Manifest) []*snapshot.Manifest { return snapshot.SortByTime(ms, true) }

// maxCheckpoints is how many unfinished uploads after the last finished one are
// looked into for files already read. Each is one more place to look up every file.
const maxCheckpoints = 2

// parents returns the snapshots against which reading may be spared: the last
// complete one of the same source and instance, and what was begun and not
// finished since, the latest first. What can't be read, or needs a pack that is
// lost, is left out: a damaged repository must not keep a new backup from being
// made, nor pass its damage on.
func (b *backup) parents(ctx context.Context) []*snapshot.Manifest {
	ids, _ := findIDs(ctx, b.rep, chainLabels(b.request)) // None, where they can't be read.

	var all []*snapshot.Manifest

	for _, id := range ids {
		if m, err := snapshot.LoadSnapshot(ctx, b.rep, id); err == nil && m.RootEntry != nil {
			all = append(all, m)
		}
	}

	if b.rota == nil {
		b.rota = rotaOf(lastComplete(all), b.request.Job)
	}

	if !b.stamps.telling {
		b.parent = lastComplete(all)

		return nil
	}

	chosen := toBuildUpon(all, func(m *snapshot.Manifest) bool { return b.sound(ctx, m) })
	b.parent = lastComplete(chosen)

	return chosen
}

// toBuildUpon chooses the last complete snapshot that is sound, and before it the unfinished ones, the latest first: of
// each upload the last sound one, since an upload adds to what it has written down before.
func toBuildUpon(all []*snapshot.Manifest, sound func(*snapshot.Manifest) bool) []*snapshot.Manifest {
	var chosen []*snapshot.Manifest

	checkpoints := 0

	for _, m := range newest(all) {
		if !complete(m) {
			if checkpoints == maxCheckpoints || ofUpload(chosen, m) {
				continue
			}

			checkpoints++
		}

		if !sound(m) {
			continue
		}

		if chosen = append(chosen, m); complete(m) {
			break
		}
	}

	return chosen
}

// ofUpload reports whether one of the snapshots is of the same upload.
func ofUpload(ms []*snapshot.Manifest, unfinished *snapshot.Manifest) bool {
	return slices.ContainsFunc(ms, func(m *snapshot.Manifest) bool { return m.StartTime == unfinished.StartTime })
}

// lastComplete returns the finished snapshot that was begun last; nil if there is none.
func lastComplete(ms []*snapshot.Manifest) *snapshot.Manifest {
	for _, m := range newest(ms) {
		if complete(m) {
			return m
		}
	}

	return nil
}

// sound reports whether a snapshot can be built upon. A finished one was verified when
// it was made, so that only what was lost since matters; what no packs were lost of is looked
// up in the new snapshot. What was written down along the way never was verified.
func (b *backup) sound(ctx context.Context, m *snapshot.Manifest) bool {
	if complete(m) && len(b.lost) == 0 {
		if readRoot(ctx, b.rep, m) == nil {
			return true
		}

		// Where it is dropped, the root folder of this backup gets another one.
		_ = b.dropUnreadable(ctx, []object.ID{m.RootEntry.ObjectID}) // The new snapshot is looked through.

		return false
	}

	return b.lost.spare(ctx, b.rep, m) == nil
}

// readRoot reads the root folder of a snapshot and throws it away.
func readRoot(ctx context.Context, rep repo.Repository, m *snapshot.Manifest) error {
	if m.RootEntry == nil {
		return engine.Errorf(engine.CodeRepositoryDamaged, "snapshot %s has no root", m.ID)
	}

	r, err := rep.OpenObject(ctx, m.RootEntry.ObjectID)
	if err != nil {
		return fmt.Errorf("open root folder of snapshot %s: %w", m.ID, err)
	}
	defer func() { _ = r.Close() }() // Open for reading.

	var root struct {
		Entries []json.RawMessage `json:"entries"`
	}

	if err := json.NewDecoder(r).Decode(&root); err != nil {
		return fmt.Errorf("read root folder of snapshot %s: %w", m.ID, err)
	}

	return nil
}

// Snapshots implements engine.Engine.
func (e *Engine) Snapshots(ctx context.Context) ([]engine.Snapshot, error) {
	var list []engine.Snapshot

	err := e.withRepository(ctx, reading, func(ctx context.Context, rep repo.Repository) error {
		ms, err := find(ctx, rep, map[string]string{snapshot.UsernameLabel: contract.SnapshotUser})
		if err := errors.Join(err, unlisted(rep)); err != nil {
			return err
		}

		for _, m := range snapshot.SortByTime(ms, false) {
			if s := listing(m); complete(m) && s.Tags[contract.TagJob] != "" {
				list = append(list, s)
			}
		}

		return nil
	})

	return list, err
}

func listing(m *snapshot.Manifest) engine.Snapshot {
	s := engine.Snapshot{
		ID:   string(m.ID),
		Host: m.Source.Host,
		Path: m.Source.Path,
		Time: m.StartTime.ToTime().UTC(),
		Tags: map[string]string{},
	}

	for k, v := range m.Tags {
		if name, ok := strings.CutPrefix(k, tagPrefix); ok {
			s.Tags[name] = v
		}
	}

	if m.RootEntry != nil && m.RootEntry.DirSummary != nil {
		s.Bytes = m.RootEntry.DirSummary.TotalFileSize
	}

	return s
}

// Forget implements engine.Engine.
func (e *Engine) Forget(ctx context.Context, r engine.ForgetRequest) (engine.ForgetResult, error) {
	if r.Job == "" {
		return engine.ForgetResult{}, engine.Errorf(engine.CodeInvalidRequest, "forget snapshots: no job is named")
	}

	var res engine.ForgetResult

	err := e.withRepository(ctx, writing, func(ctx context.Context, rep repo.Repository) (err error) {
		res.Deleted, err = forget(ctx, rep, r)
		if err == nil && res.Deleted == 0 {
			return unlisted(rep)
		}

		if err != nil {
			return err
		}

		if err := rep.Refresh(ctx); err != nil {
			return fmt.Errorf("look whether job %s is forgotten: %w", r.Job, err)
		}

		ids, err := findIDs(ctx, rep, jobLabels(r.Job, r.Expect))
		if err == nil && len(ids) > 0 {
			err = engine.Errorf(engine.CodeStoreLostWrite, "forget snapshots of job %s: %d are still listed", r.Job, len(ids))
		}

		return err
	})

	return res, err
}

// forget deletes the manifests of a job's snapshots, finished or not, and of what lies beside them. It returns how
// many snapshots there were.
func forget(ctx context.Context, rep repo.Repository, r engine.ForgetRequest) (int, error) {
	deleted := 0

	err := repo.WriteSession(ctx, rep, repo.WriteSessionOptions{Purpose: "forget"},
		func(ctx context.Context, w repo.RepositoryWriter) (err error) {
			if deleted, err = remove(ctx, w, jobLabels(r.Job, r.Expect)); err != nil {
				return err
			}

			_, err = remove(ctx, w, sidecarLabels(r.Job, r.Expect))

			return err
		})

	return deleted, err
}

// remove deletes the manifests with the labels, and returns how many there were.
func remove(ctx context.Context, w repo.RepositoryWriter, labels map[string]string) (int, error) {
	ids, err := findIDs(ctx, w, labels)
	if err != nil {
		return 0, err
	}

	for _, id := range ids {
		if err := w.DeleteManifest(ctx, id); err != nil {
			return 0, fmt.Errorf("delete snapshot %s: %w", id, err)
		}
	}

	return len(ids), nil
}
