package node

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/mover/state"
)

// The kinds of jobs, in events and metrics.
const (
	kindBackup  = "VolumeBackup"
	kindRestore = "VolumeRestore"
)

// ReconcileBackup looks after one VolumeBackup.
func (n *Node) ReconcileBackup(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	job := &v1alpha1.VolumeBackup{}
	if ok, err := n.mine(ctx, req, job); !ok {
		return ctrl.Result{}, err
	}

	ref := readThrough(job)
	d := &drive{
		Node: n, kind: kindBackup, omitted: "not kept", object: job, status: &job.Status.JobStatus,
		pod: types.NamespacedName{Namespace: ref.Namespace, Name: ref.Pod.Name}, podUID: ref.Pod.UID, volumeName: ref.Name, claim: claimOf(ref),
		check: func(ctx context.Context) (verdict, error) { return n.checkBackup(ctx, job) },
		guard: func(ctx context.Context, _ podlist.Age) (*state.Finding, error) { return n.refilled(ctx, job) },
		stopped: func(now time.Time) bool {
			return job.Spec.Cancel || job.Status.Phase == v1alpha1.PhaseCanceling || state.BackupOverdue(job, now, n.Bounds)
		},
		decide: func(o state.Observed, now time.Time) state.Decision {
			return state.NextBackup(job, o, now, n.Bounds)
		},
		work: func() task.Work { return backupWork(job) },
		keep: func(r task.Result) v1alpha1.Summary { return keepBackup(job, r.Backup) },
	}

	if ref.Claim != nil {
		d.claimUID = ref.Claim.UID
	}

	return d.step(ctx)
}

// ReconcileRestore looks after one VolumeRestore.
func (n *Node) ReconcileRestore(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	job := &v1alpha1.VolumeRestore{}
	if ok, err := n.mine(ctx, req, job); !ok {
		return ctrl.Result{}, err
	}

	ref := job.Spec.Target
	d := &drive{
		claimUID: job.Status.ClaimUID,
		Node:     n, kind: kindRestore, omitted: "not restored", object: job, status: &job.Status.JobStatus,
		pod: types.NamespacedName{Namespace: ref.Namespace, Name: ref.Pod.Name}, volumeName: ref.Name, claim: claimOf(ref),
		check:   func(ctx context.Context) (verdict, error) { return n.checkRestore(ctx, job) },
		stopped: func(time.Time) bool { return job.Spec.Cancel || job.Status.Phase == v1alpha1.PhaseCanceling },
		guard: func(ctx context.Context, age podlist.Age) (*state.Finding, error) {
			return n.spoiled(ctx, job, age)
		},
		decide: func(o state.Observed, now time.Time) state.Decision {
			return state.NextRestore(job, o, now, n.Bounds)
		},
		work: func() task.Work { return n.restoreWork(job) },
		note: func(r task.Result) *state.Finding { return note(job, r.Restore) },
		keep: func(r task.Result) v1alpha1.Summary { return keepRestore(job, r.Restore) },
	}

	if p := job.Status.Pod; p != nil {
		d.pod.Name, d.podUID = p.Name, p.UID
	}

	return d.step(ctx)
}

// mine reads the job, and reports whether it is there and of this node. The run of
// a job that is not is ended.
func (n *Node) mine(ctx context.Context, req ctrl.Request, job client.Object) (bool, error) {
	err := n.Client.Get(ctx, req.NamespacedName, job)
	gone := apierrors.IsNotFound(err)
	if err != nil && !gone {
		return false, fmt.Errorf("read job %s from the cache: %w", req, err)
	}

	if gone || job.GetLabels()[contract.LabelNode] != jobs.LabelValue(n.Name) || job.GetNamespace() != n.Namespace {
		n.Tasks.End(req.Name, task.Forget)
		return false, nil
	}

	return true, nil
}

// readThrough returns the volume with the pod that it is read through: the one that the controller has chosen,
// because the spec names none or names a pod that is gone, or else that of the spec.
func readThrough(job *v1alpha1.VolumeBackup) v1alpha1.VolumeReference {
	ref := *job.Spec.Volume.DeepCopy()
	if p := job.Status.Pod; p != nil {
		ref.Pod = *p
	}

	return ref
}

func claimOf(ref v1alpha1.VolumeReference) string {
	if ref.Claim == nil {
		return ""
	}

	return ref.Claim.Name
}

func backupWork(job *v1alpha1.VolumeBackup) task.Work {
	ref := readThrough(job)

	return task.Work{
		Repository: job.Spec.Repository,
		Frozen:     job.Spec.Options.Frozen,
		Backup: &engine.BackupRequest{
			Host:     contract.SnapshotHost(ref.Namespace),
			Path:     job.Spec.Source.Path,
			Instance: job.Spec.Source.Instance,
			Job:      job.Name,
			Tags: contract.Snapshot{
				Job:       job.Name,
				Backup:    contract.Owner{Name: job.Spec.Backup.Name, UID: string(job.Spec.Backup.UID)},
				Instance:  job.Spec.Source.Instance,
				Namespace: ref.Namespace,
				Pod:       ref.Pod.Name,
				Volume:    ref.Name,
			}.Tags(),
			Description: describe(ref) + ", backup " + job.Spec.Backup.Name,
		},
	}
}

func describe(ref v1alpha1.VolumeReference) string {
	if ref.Name == "" && ref.Claim != nil {
		return fmt.Sprintf("claim %s/%s", ref.Namespace, ref.Claim.Name)
	}

	return fmt.Sprintf("volume %s of pod %s/%s", ref.Name, ref.Namespace, ref.Pod.Name)
}

func keepBackup(job *v1alpha1.VolumeBackup, r *engine.BackupResult) v1alpha1.Summary {
	if r == nil {
		return v1alpha1.Summary{}
	}

	job.Status.SnapshotID, job.Status.Incremental, job.Status.Summary = r.SnapshotID, r.Incremental, summary(r.Summary)
	job.Status.Summary.NewData = contract.Size(r.Summary.StoredBytes)
	job.Status.LostPacks = int64(r.LostPacks)

	return job.Status.Summary
}

func summary(s engine.Summary) v1alpha1.Summary {
	out := v1alpha1.Summary{
		Files: s.Files, Directories: s.Directories, Symlinks: s.Symlinks,
		Bytes: s.Bytes, ReadBytes: s.ReadBytes, StoredBytes: s.StoredBytes,
	}
	for _, o := range s.Omissions[:min(len(s.Omissions), maxOmissions)] {
		out.Omissions = append(out.Omissions, v1alpha1.Omission{Reason: short(string(o.Reason)), Count: o.Count, Examples: shorten(o.Examples)})
	}

	return out
}

// What a status holds of omissions at most, whatever a worker says: paths are a tenant's choice.
const (
	maxOmissions = 32
	maxExamples  = 10
	maxExample   = 512
)

func shorten(examples []string) []string {
	out := make([]string, 0, maxExamples)
	for _, e := range examples[:min(len(examples), maxExamples)] {
		out = append(out, short(e))
	}

	return out
}

func short(text string) string {
	return strings.ToValidUTF8(text[:min(len(text), maxExample)], "")
}

// unchanged reports whether a merge patch says nothing but the resource version it is for.
func unchanged(patch []byte) bool {
	var p map[string]json.RawMessage
	if json.Unmarshal(patch, &p) != nil {
		return false
	}

	_, status := p["status"]

	return !status
}
