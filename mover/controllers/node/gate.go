package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/target"
	"github.com/estiba-dev/estiba/mover/state"
)

// GateKeeper writes into the gates of this node's pods what their restores have come to.
type GateKeeper struct {
	node  *Node
	gates Gates

	mu   sync.Mutex
	told map[types.NamespacedName]told
}

// told is what was written last, so that it is not written again.
type told struct {
	pod      types.UID
	progress string
	at       time.Time
	outcome  contract.GateOutcome
}

// aliveEvery is how often the line of progress is written anew though it says the same.
const aliveEvery = 20 * time.Second

// NewGateKeeper makes one for the node's pods.
func NewGateKeeper(n *Node, g Gates) *GateKeeper {
	return &GateKeeper{node: n, gates: g, told: map[types.NamespacedName]told{}}
}

// Reconcile looks after the gate of one pod. It never asks in which phase the
// Restore is: Velero may wait for something that waits for this very pod.
func (k *GateKeeper) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var pod corev1.Pod

	err := k.node.Client.Get(ctx, req.NamespacedName, &pod)
	gone := apierrors.IsNotFound(err)
	if err != nil && !gone {
		return ctrl.Result{}, fmt.Errorf("read pod %s from the cache: %w", req, err)
	}

	if gone || !k.gated(&pod) {
		k.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}

	record, err := contract.DecodeGateRecord(pod.Annotations[contract.AnnotationRestore])
	if err != nil {
		return k.act(ctx, &pod, state.UnreadableGate(err))
	}

	if !record.Of(k.node.Namespace) {
		// The daemon of another install speaks to it.
		k.forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}

	jobs, err := k.jobs(ctx, &pod, record)
	if err != nil {
		return ctrl.Result{}, err
	}

	standing := k.node.Clock.Since(pod.CreationTimestamp.Time)

	return k.act(ctx, &pod, state.NextGate(jobs, standing, k.node.Bounds))
}

// act writes what was decided, and says when to look again.
func (k *GateKeeper) act(ctx context.Context, pod *corev1.Pod, dec state.GateDecision) (ctrl.Result, error) {
	err := k.write(ctx, pod, dec)
	if errors.Is(err, ErrNotMounted) {
		return ctrl.Result{RequeueAfter: k.node.Bounds.Soon}, nil
	}

	if err != nil {
		return ctrl.Result{}, fmt.Errorf("write gate of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	switch dec.State {
	case state.GateOpen:
		return ctrl.Result{}, nil
	case state.GateFailed:
		// The restore may be tried again.
		return ctrl.Result{RequeueAfter: k.node.Bounds.Recheck}, nil
	default:
		return ctrl.Result{RequeueAfter: k.node.Bounds.Poll}, nil
	}
}

// gated reports whether the pod stands at, or before, a gate on this node.
func (k *GateKeeper) gated(pod *corev1.Pod) bool {
	if pod.Spec.NodeName != k.node.Name || !pod.DeletionTimestamp.IsZero() || target.Finished(pod) {
		return false
	}

	g := target.Gate(pod)

	return g == state.GateAhead || g == state.GateThere
}

// jobs reads the restores that the gate waits for, on whichever nodes they run.
// A record names them, but anyone who may make pods may write a record: a job
// that is not of the record's Restore, or not for this pod, is none.
func (k *GateKeeper) jobs(ctx context.Context, pod *corev1.Pod, record contract.GateRecord) ([]state.GateJob, error) {
	out := make([]state.GateJob, 0, len(record.Jobs))

	for volume, name := range record.Jobs {
		job := state.GateJob{Volume: volume, Name: name}

		var vr v1alpha1.VolumeRestore

		found, err := k.node.get(ctx, k.node.Namespace, name, &vr)
		if err != nil {
			return nil, err
		}

		if found && fits(&vr, pod, record, volume) {
			mine, err := k.filled(ctx, &vr, pod)
			if err != nil {
				return nil, err
			}

			if mine {
				job.Status = &vr.Status.JobStatus
			}
		}

		out = append(out, job)
	}

	return out, nil
}

// filled reports whether what the job has filled, or is filling, is the pod's very
// volume, and not one of the same name: a pod or a claim may have been made anew.
func (k *GateKeeper) filled(ctx context.Context, vr *v1alpha1.VolumeRestore, pod *corev1.Pod) (bool, error) {
	ref := vr.Spec.Target
	if ref.Claim == nil {
		chosen := vr.Status.Pod
		return chosen != nil && chosen.UID == pod.UID || chosen == nil && vr.Status.Phase != v1alpha1.PhaseCompleted, nil
	}

	// A daemon of the release before keeps no UID.
	if vr.Status.Phase != v1alpha1.PhaseCompleted || vr.Status.ClaimUID == "" {
		return true, nil
	}

	var claim corev1.PersistentVolumeClaim

	found, err := k.node.get(ctx, ref.Namespace, ref.Claim.Name, &claim)

	return found && claim.UID == vr.Status.ClaimUID, err
}

func fits(vr *v1alpha1.VolumeRestore, pod *corev1.Pod, record contract.GateRecord, volume string) bool {
	t := vr.Spec.Target
	if string(vr.Spec.Restore.UID) != record.Restore.UID || t.Namespace != pod.Namespace {
		return false
	}

	if t.Claim == nil {
		return t.Pod.Name == pod.Name && t.Name == volume
	}

	v := target.Volume(pod, volume)

	return v != nil && v1alpha1.ClaimName(pod, v) == t.Claim.Name
}

func (k *GateKeeper) write(ctx context.Context, pod *corev1.Pod, dec state.GateDecision) error {
	key := client.ObjectKeyFromObject(pod)

	k.mu.Lock()
	last := k.told[key]
	k.mu.Unlock()

	if last.pod != pod.UID {
		last = told{pod: pod.UID}
	}

	now := k.node.Clock.Now()

	// The same line again is a sign of life for the one who waits.
	if dec.Progress != last.progress || now.Sub(last.at) >= aliveEvery {
		if err := k.gates.Progress(ctx, pod.UID, dec.Progress); err != nil {
			return err
		}

		last.progress, last.at = dec.Progress, now
	}

	outcome := contract.GateOutcome{Version: contract.RecordVersion}

	switch dec.State {
	case state.GateOpen:
		outcome.State = contract.GateOpen
	case state.GateFailed:
		outcome.State, outcome.Message = contract.GateFailed, dec.Message
	default:
		k.remember(key, last)
		return nil
	}

	if outcome != last.outcome {
		if err := k.gates.Outcome(ctx, pod.UID, outcome); err != nil {
			return err
		}

		last.outcome = outcome
		k.tell(pod, dec)
	}

	k.remember(key, last)

	return nil
}

func (k *GateKeeper) tell(pod *corev1.Pod, dec state.GateDecision) {
	if dec.State == state.GateOpen {
		k.node.Events.Event(pod, corev1.EventTypeNormal, dec.Reason, "all volumes are restored; the gate is open")
		return
	}

	k.node.Events.Event(pod, corev1.EventTypeWarning, dec.Reason, "the gate stays closed: "+dec.Message)
}

func (k *GateKeeper) remember(key types.NamespacedName, t told) {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.told[key] = t
}

func (k *GateKeeper) forget(key types.NamespacedName) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.told, key)
}
