package state_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/state"
)

func restoreOf(kind v1alpha1.VolumeKind) *v1alpha1.VolumeRestore {
	j := &v1alpha1.VolumeRestore{ObjectMeta: metav1.ObjectMeta{Name: "vr-1", CreationTimestamp: metav1.NewTime(created)}}
	j.Spec.Target = v1alpha1.VolumeReference{Kind: kind, Namespace: "app", Pod: v1alpha1.PodReference{Name: "web-0"}, Name: "data"}

	return j
}

func pod(name string, mutate ...func(*state.TargetPod)) state.TargetPod {
	p := state.TargetPod{Name: name, UID: "uid-" + name, Node: "n1", Created: created, Scheduled: created, Gate: state.GateThere}
	for _, m := range mutate {
		m(&p)
	}

	return p
}

func gate(g state.GatePosition) func(*state.TargetPod) {
	return func(p *state.TargetPod) { p.Gate = g }
}

func unscheduled(p *state.TargetPod) {
	p.Node, p.Scheduled, p.Gate = "", time.Time{}, state.GateAhead
}
func deleting(p *state.TargetPod) { p.Deleting = true }
func finished(p *state.TargetPod) { p.Finished = true }

func TestRouteRestore(t *testing.T) {
	t.Parallel()

	const (
		claim     = v1alpha1.VolumePersistentVolumeClaim
		ephemeral = v1alpha1.VolumeEmptyDir
	)

	pull := func(p *state.TargetPod) {
		p.Gate, p.Detail = state.GateAhead, state.Finding{Reason: state.ReasonGateImagePull, Message: "ImagePullBackOff"}
	}
	missing := func(since time.Duration) func(*v1alpha1.VolumeRestore) {
		return func(j *v1alpha1.VolumeRestore) {
			state.Apply(&j.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseNew, Reason: state.ReasonPodNotFound}, created.Add(time.Minute-since))
		}
	}

	pending := func(since time.Duration) func(*v1alpha1.VolumeRestore) {
		return func(j *v1alpha1.VolumeRestore) {
			state.Apply(&j.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseAccepted, Reason: state.ReasonClaimPending}, created.Add(time.Minute-since))
		}
	}

	for name, c := range map[string]struct {
		kind   v1alpha1.VolumeKind
		fault  *state.ClaimFault
		mutate func(*v1alpha1.VolumeRestore)
		owner  state.Owner
		pods   []state.TargetPod
		deaf   bool
		silent time.Duration
		at     time.Duration
		phase  v1alpha1.Phase
		reason string
		route  *state.Route
		after  time.Duration
	}{
		"all pods at their gates: the first by name is chosen": {
			kind: claim, pods: []state.TargetPod{pod("b", func(p *state.TargetPod) { p.Node = "n2" }), pod("a")},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, route: &state.Route{Node: "n1", Pod: v1alpha1.PodReference{Name: "a", UID: "uid-a"}},
		},
		"one of a claim's pods at its gate is enough": {
			kind: claim, pods: []state.TargetPod{pod("a", unscheduled), pod("b", gate(state.GateAhead)), pod("c", deleting), pod("d"), pod("e", pull)},
			at: time.Hour, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, route: &state.Route{Node: "n1", Pod: v1alpha1.PodReference{Name: "d", UID: "uid-d"}},
		},
		"one that is held back keeps none from its data": {
			kind: claim, pods: []state.TargetPod{pod("a", unscheduled, gate(state.GateHeld)), pod("b")},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, route: &state.Route{Node: "n1", Pod: v1alpha1.PodReference{Name: "b", UID: "uid-b"}},
		},
		"beside one that is held back another is waited for": {
			kind: claim, pods: []state.TargetPod{pod("a", unscheduled, gate(state.GateHeld)), pod("b", gate(state.GateAhead))},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonGateNotReached, after: 5 * time.Second,
		},
		"beside one that is held back another doesn't come": {
			kind: claim, pods: []state.TargetPod{pod("a", unscheduled, gate(state.GateHeld)), pod("b", deleting)},
			phase: v1alpha1.PhaseFailed, reason: state.ReasonPodDeleted,
		},
		"beside one that is held back another has no gate": {
			kind: claim, pods: []state.TargetPod{pod("a", unscheduled, gate(state.GateHeld)), pod("b", gate(state.GateNone))},
			phase: v1alpha1.PhaseFailed, reason: state.ReasonUngatedPod,
		},
		"all are held back": {
			kind: claim, pods: []state.TargetPod{pod("a", unscheduled, gate(state.GateHeld)), pod("b", unscheduled, gate(state.GateHeld))},
			phase: v1alpha1.PhaseFailed, reason: state.ReasonUngatedPod,
		},
		"the only one is held back and is going": {
			kind: claim, pods: []state.TargetPod{pod("a", unscheduled, gate(state.GateHeld), deleting)},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonWaitingForPodEnd, after: 5 * time.Second,
		},
		"a pod on a node without a daemon leaves it to another": {
			kind: claim, pods: []state.TargetPod{pod("a", func(p *state.TargetPod) { p.Node = "n9" }), pod("b")},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, route: &state.Route{Node: "n1", Pod: v1alpha1.PodReference{Name: "b", UID: "uid-b"}},
		},
		"one that may come yet is waited for though others can't": {
			kind: claim, pods: []state.TargetPod{pod("a", deleting), pod("b", unscheduled), pod("c", gate(state.GateAhead))},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonGateNotReached, after: 5 * time.Second,
		},
		"none comes any more": {
			kind: claim, pods: []state.TargetPod{pod("a", unscheduled), pod("b", unscheduled)},
			at: 10 * time.Minute, phase: v1alpha1.PhaseFailed, reason: state.ReasonPodUnscheduled,
		},
		"its claim gets no volume": {
			kind: claim, fault: &state.ClaimFault{Message: "no class"}, pods: []state.TargetPod{pod("a", unscheduled)},
			at: time.Hour, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimPending, after: 5 * time.Second,
		},
		"its claim gets no volume for long": {
			kind: claim, fault: &state.ClaimFault{Message: "no class"}, mutate: pending(10 * time.Minute), pods: []state.TargetPod{pod("a", unscheduled)},
			phase: v1alpha1.PhaseFailed, reason: state.ReasonClaimPending,
		},
		"its claim may get a volume yet": {
			kind: claim, fault: &state.ClaimFault{Message: "no class"}, mutate: pending(2 * time.Minute), pods: []state.TargetPod{pod("a", unscheduled)},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimPending, after: 5 * time.Second,
		},
		"its claim gets no volume at all": {
			kind: claim, fault: &state.ClaimFault{Message: "no class", Final: true}, mutate: pending(2 * time.Minute), pods: []state.TargetPod{pod("a", unscheduled)},
			phase: v1alpha1.PhaseFailed, reason: state.ReasonClaimPending,
		},
		"a pod has a node all the same": {
			kind: claim, fault: &state.ClaimFault{Message: "no class"}, pods: []state.TargetPod{pod("a")},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, route: &state.Route{Node: "n1", Pod: v1alpha1.PodReference{Name: "a", UID: "uid-a"}},
		},
		"one pod at its gate is routed": {
			kind: ephemeral, pods: []state.TargetPod{pod("web-0")},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, route: &state.Route{Node: "n1", Pod: v1alpha1.PodReference{Name: "web-0", UID: "uid-web-0"}},
		},
		"no pod yet while the Restore makes objects": {kind: ephemeral, phase: v1alpha1.PhaseNew, reason: state.ReasonWaitingForPods, after: 5 * time.Second},
		"no pod although the Restore has made all":   {kind: ephemeral, owner: state.OwnerWaiting, phase: v1alpha1.PhaseNew, reason: state.ReasonPodNotFound, after: 5 * time.Second},
		"no pod just before the bound": {
			kind: ephemeral, owner: state.OwnerWaiting, mutate: missing(119 * time.Second),
			phase: v1alpha1.PhaseNew, reason: state.ReasonPodNotFound, after: 5 * time.Second,
		},
		"no pod at the bound": {kind: ephemeral, owner: state.OwnerDone, mutate: missing(120 * time.Second), phase: v1alpha1.PhaseFailed, reason: state.ReasonPodNotFound},
		"a pod without a gate stops the restore, also if others wait": {
			kind: claim, pods: []state.TargetPod{pod("a", unscheduled), pod("b", gate(state.GateNone))},
			phase: v1alpha1.PhaseFailed, reason: state.ReasonUngatedPod,
		},
		"a pod without a gate that is being deleted is waited for": {
			kind: claim, pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateNone), deleting)},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonWaitingForPodEnd, after: 5 * time.Second,
		},
		"a finished pod of a claim doesn't count": {
			kind: claim, pods: []state.TargetPod{pod("a", gate(state.GateNone), finished), pod("b")},
			phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, route: &state.Route{Node: "n1", Pod: v1alpha1.PodReference{Name: "b", UID: "uid-b"}},
		},
		"a finished pod of its own volume was rejected": {kind: ephemeral, pods: []state.TargetPod{pod("a", finished)}, phase: v1alpha1.PhaseFailed, reason: state.ReasonPodRejected},
		"a pod that left its gate stops the restore":    {kind: ephemeral, pods: []state.TargetPod{pod("a", gate(state.GateBehind))}, phase: v1alpha1.PhaseFailed, reason: state.ReasonGatePassed},
		"a pod being deleted fails the restore":         {kind: ephemeral, pods: []state.TargetPod{pod("a", deleting)}, phase: v1alpha1.PhaseFailed, reason: state.ReasonPodDeleted},
		"an unscheduled pod is waited for":              {kind: ephemeral, pods: []state.TargetPod{pod("a", unscheduled)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonPodUnscheduled, after: 5 * time.Second},
		"an unscheduled pod is waited for just so long": {kind: ephemeral, pods: []state.TargetPod{pod("a", unscheduled)}, at: 10*time.Minute - time.Second, phase: v1alpha1.PhaseAccepted, reason: state.ReasonPodUnscheduled, after: 5 * time.Second},
		"an unscheduled pod fails at the bound":         {kind: ephemeral, pods: []state.TargetPod{pod("a", unscheduled)}, at: 10 * time.Minute, phase: v1alpha1.PhaseFailed, reason: state.ReasonPodUnscheduled},
		"a gate ahead is waited for":                    {kind: ephemeral, pods: []state.TargetPod{pod("a", gate(state.GateAhead))}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonGateNotReached, after: 5 * time.Second},
		"a gate ahead fails at the bound":               {kind: ephemeral, pods: []state.TargetPod{pod("a", gate(state.GateAhead))}, at: 5 * time.Minute, phase: v1alpha1.PhaseFailed, reason: state.ReasonGateNotReached},
		"an image that can't be pulled is told":         {kind: ephemeral, pods: []state.TargetPod{pod("a", pull)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonGateImagePull, after: 5 * time.Second},
		"an image that can't be pulled fails, so named": {kind: ephemeral, pods: []state.TargetPod{pod("a", pull)}, at: 5 * time.Minute, phase: v1alpha1.PhaseFailed, reason: state.ReasonGateImagePull},
		"a node without a daemon is waited for":         {kind: ephemeral, pods: []state.TargetPod{pod("a")}, deaf: true, phase: v1alpha1.PhaseAccepted, reason: state.ReasonNoDaemonOnNode, after: 5 * time.Second},
		"a node without a daemon fails at the bound":    {kind: ephemeral, pods: []state.TargetPod{pod("a")}, deaf: true, at: 5 * time.Minute, phase: v1alpha1.PhaseFailed, reason: state.ReasonNoDaemonOnNode},
		"a node whose daemon went silent is waited for": {kind: ephemeral, pods: []state.TargetPod{pod("a")}, silent: 2 * time.Minute, phase: v1alpha1.PhaseAccepted, reason: state.ReasonNoDaemonOnNode, after: 5 * time.Second},
		"a node whose daemon is late is not":            {kind: ephemeral, pods: []state.TargetPod{pod("a")}, silent: 2*time.Minute - time.Second, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, route: &state.Route{Node: "n1", Pod: v1alpha1.PodReference{Name: "a", UID: "uid-a"}}},
		"a Restore that is gone cancels":                {kind: ephemeral, owner: state.OwnerGone, pods: []state.TargetPod{pod("a")}, phase: v1alpha1.PhaseCanceled, reason: state.ReasonOwnerGone},
		"a Restore that failed cancels":                 {kind: ephemeral, owner: state.OwnerFailed, pods: []state.TargetPod{pod("a")}, phase: v1alpha1.PhaseCanceled, reason: state.ReasonOwnerFailed},
		"a cancelled one is canceled":                   {kind: ephemeral, mutate: func(j *v1alpha1.VolumeRestore) { j.Spec.Cancel = true }, pods: []state.TargetPod{pod("a")}, phase: v1alpha1.PhaseCanceled, reason: state.ReasonCancelRequested},
		"a failed one is never left": {
			kind: ephemeral, mutate: func(j *v1alpha1.VolumeRestore) { j.Status.Phase, j.Status.Reason = v1alpha1.PhaseFailed, "X" },
			pods: []state.TargetPod{pod("a")}, phase: v1alpha1.PhaseFailed, reason: "X",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			if c.at == 0 {
				c.at = time.Minute
			}

			job := restoreOf(c.kind)
			if c.mutate != nil {
				c.mutate(job)
			}

			view := state.RestoreView{Owner: c.owner, Claim: state.Claim{Fault: c.fault}, Pods: c.pods, Heartbeats: map[string]state.Heartbeat{}}
			for _, n := range []string{"n1", "n2"} {
				view.Heartbeats[n] = state.Heartbeat{Renewed: created.Add(c.at - c.silent)}
			}

			if c.deaf {
				view.Heartbeats = nil
			}

			d := state.RouteRestore(job, view, created.Add(c.at), state.DefaultBounds())
			assert.Equal(t, c.phase, d.Phase)
			assert.Equal(t, c.reason, d.Reason)
			assert.Equal(t, c.route, d.Route)
			assert.Equal(t, c.after, d.RequeueAfter)
			assert.Equal(t, c.route != nil, d.Action == state.ActionRoute)
		})
	}
}

func TestUngatedPodIsNamed(t *testing.T) {
	t.Parallel()

	for maker, remedy := range map[string]string{
		"":               "delete pod intruder, and the other workloads whose pods mount the volume, and restore again",
		"ReplicaSet web": "delete ReplicaSet web, and the other",
		"Job import":     "delete Job import and the CronJob that makes it, if any, and the other",
	} {
		intruder := pod("intruder", gate(state.GateNone))
		intruder.Maker = maker

		d := state.RouteRestore(restoreOf(v1alpha1.VolumePersistentVolumeClaim),
			state.RestoreView{Pods: []state.TargetPod{intruder}}, created, state.DefaultBounds())
		assert.Contains(t, d.Message, "pod intruder mounts the volume")
		assert.Contains(t, d.Message, remedy)
	}
}

func staging(job string) func(*state.TargetPod) {
	return func(p *state.TargetPod) { p.StagedFor = job }
}

func TestRecheck(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		pods      []state.TargetPod
		unrouted  bool
		permanent string
		waiting   string
	}{
		"all at their gates":                  {pods: []state.TargetPod{pod("a"), pod("b")}},
		"no pod was chosen":                   {unrouted: true, waiting: state.ReasonNotRouted},
		"the chosen pod is gone":              {pods: []state.TargetPod{pod("b")}, permanent: state.ReasonPodNotFound},
		"the chosen pod was made anew":        {pods: []state.TargetPod{pod("a", func(p *state.TargetPod) { p.UID = "other" })}, permanent: state.ReasonPodNotFound},
		"the chosen pod is elsewhere":         {pods: []state.TargetPod{pod("a", func(p *state.TargetPod) { p.Node = "n9" })}, permanent: state.ReasonPodMoved},
		"a pod came without a gate":           {pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateNone))}, permanent: state.ReasonUngatedPod},
		"a pod without a gate is going":       {pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateNone), deleting)}, waiting: state.ReasonWaitingForPodEnd},
		"a pod left its gate":                 {pods: []state.TargetPod{pod("a", gate(state.GateBehind))}, permanent: state.ReasonGatePassed},
		"the chosen pod isn't at its gate":    {pods: []state.TargetPod{pod("a", gate(state.GateAhead)), pod("b")}, waiting: state.ReasonGateNotReached},
		"another pod has not reached its own": {pods: []state.TargetPod{pod("a"), pod("b", gate(state.GateAhead))}},
		"another pod has no node":             {pods: []state.TargetPod{pod("a"), pod("b", unscheduled)}},
		"another gated pod is being deleted":  {pods: []state.TargetPod{pod("a"), pod("b", deleting)}},
		"another pod is held back":            {pods: []state.TargetPod{pod("a"), pod("b", unscheduled, gate(state.GateHeld))}},
		"only one that is held back is left":  {pods: []state.TargetPod{pod("b", unscheduled, gate(state.GateHeld))}, permanent: state.ReasonUngatedPod},
		"another job's staging pod goes":      {pods: []state.TargetPod{pod("a"), pod("s", staging("vb-2"), deleting)}, waiting: state.ReasonClaimHeld},
		"another job's staging pod starts":    {pods: []state.TargetPod{pod("a"), pod("s", staging("vb-2"), gate(state.GateAhead))}, waiting: state.ReasonClaimHeld},
		"its own staging pod goes":            {pods: []state.TargetPod{pod("a", staging("vr-1"), deleting)}, permanent: state.ReasonPodDeleted},
		"a gated pod is being deleted":        {pods: []state.TargetPod{pod("a", deleting)}, permanent: state.ReasonPodDeleted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			job := restoreOf(v1alpha1.VolumePersistentVolumeClaim)
			job.Name = "vr-1"

			if !c.unrouted {
				job.Status.Pod = &v1alpha1.PodReference{Name: "a", UID: "uid-a"}
			}

			permanent, waiting := state.Recheck(job, c.pods, "n1")
			assert.Equal(t, c.permanent, reasonOf(permanent))
			assert.Equal(t, c.waiting, reasonOf(waiting))
		})
	}
}

func reasonOf(f *state.Finding) string {
	if f == nil {
		return ""
	}

	return f.Reason
}

func TestSupervise(t *testing.T) {
	t.Parallel()

	live := state.Heartbeat{Renewed: created}

	for name, c := range map[string]struct {
		subject state.Subject
		seen    state.Supervision
		at      time.Duration
		phase   v1alpha1.Phase
		reason  string
		action  state.Action
	}{
		"a job on a live node is left alone":         {seen: state.Supervision{Node: "n1", Heartbeat: live}, at: time.Minute, phase: v1alpha1.PhaseNew},
		"a heartbeat just within the bound":          {seen: state.Supervision{Node: "n1", Heartbeat: live}, at: 2*time.Minute - time.Second, phase: v1alpha1.PhaseNew},
		"a heartbeat that is too old fails the job":  {seen: state.Supervision{Node: "n1", Heartbeat: live}, at: 2 * time.Minute, phase: v1alpha1.PhaseFailed, reason: state.ReasonNodeLost},
		"a cancelled job on a lost node is canceled": {subject: state.Subject{Cancel: true}, seen: state.Supervision{Node: "n1", Heartbeat: live}, at: 2 * time.Minute, phase: v1alpha1.PhaseCanceled, reason: state.ReasonNodeLost},
		"no heartbeat, within the grace":             {seen: state.Supervision{Node: "n1", Given: created}, at: 59 * time.Second, phase: v1alpha1.PhaseNew},
		"no heartbeat ever fails the job":            {seen: state.Supervision{Node: "n1", Given: created}, at: time.Minute, phase: v1alpha1.PhaseFailed, reason: state.ReasonNoDaemonOnNode},
		"no node fails the job":                      {phase: v1alpha1.PhaseFailed, reason: state.ReasonNotRouted},
		"an owner that is gone cancels": {
			seen: state.Supervision{Node: "n1", Heartbeat: live, Owner: state.OwnerGone}, phase: v1alpha1.PhaseNew,
			reason: state.ReasonOwnerGone, action: state.ActionRequestCancel,
		},
		"an owner that failed cancels": {
			seen: state.Supervision{Node: "n1", Heartbeat: live, Owner: state.OwnerFailed}, phase: v1alpha1.PhaseNew,
			reason: state.ReasonOwnerFailed, action: state.ActionRequestCancel,
		},
		"an owner that is being deleted cancels": {
			seen: state.Supervision{Node: "n1", Heartbeat: live, Owner: state.OwnerDeleting}, phase: v1alpha1.PhaseNew,
			reason: state.ReasonOwnerNotRunning, action: state.ActionRequestCancel,
		},
		"an owner that had ended before the job was made cancels": {
			seen: state.Supervision{Node: "n1", Heartbeat: live, Owner: state.OwnerClosed}, phase: v1alpha1.PhaseNew,
			reason: state.ReasonOwnerNotRunning, action: state.ActionRequestCancel,
		},
		"a job goes on when its Backup is completed":               {seen: state.Supervision{Node: "n1", Heartbeat: live, Owner: state.OwnerCompleted}, phase: v1alpha1.PhaseNew},
		"a finished job of a Backup in deletion is removed":        {subject: done(), seen: state.Supervision{Owner: state.OwnerDeleting}, at: 6 * time.Hour, phase: v1alpha1.PhaseCompleted, action: state.ActionRemove},
		"a job goes on when its owner has ended":                   {seen: state.Supervision{Node: "n1", Heartbeat: live, Owner: state.OwnerDone}, phase: v1alpha1.PhaseNew},
		"a cancel is not asked for twice":                          {subject: state.Subject{Cancel: true}, seen: state.Supervision{Node: "n1", Heartbeat: live, Owner: state.OwnerFailed}, phase: v1alpha1.PhaseNew},
		"an owner that is unknown changes nothing":                 {seen: state.Supervision{Node: "n1", Heartbeat: live}, phase: v1alpha1.PhaseNew},
		"a finished job is kept for a while":                       {subject: done(), seen: state.Supervision{Owner: state.OwnerDone}, at: 5 * time.Hour, phase: v1alpha1.PhaseCompleted},
		"a finished job is removed after it":                       {subject: done(), seen: state.Supervision{Owner: state.OwnerDone}, at: 6 * time.Hour, phase: v1alpha1.PhaseCompleted, action: state.ActionRemove},
		"a finished job stays while its owner may ask":             {subject: done(), seen: state.Supervision{Owner: state.OwnerWaiting}, at: 60 * time.Hour, phase: v1alpha1.PhaseCompleted},
		"a finished job stays while a gate asks for it":            {subject: done(), seen: state.Supervision{Owner: state.OwnerGone, Awaited: true}, at: 60 * time.Hour, phase: v1alpha1.PhaseCompleted},
		"a finished job stays while its owner is unknown":          {subject: done(), seen: state.Supervision{Owner: state.OwnerUnknown}, at: 60 * time.Hour, phase: v1alpha1.PhaseCompleted},
		"a finished job whose owner is gone is removed":            {subject: done(), seen: state.Supervision{Owner: state.OwnerGone}, at: 6 * time.Hour, phase: v1alpha1.PhaseCompleted, action: state.ActionRemove},
		"a finished job on a lost node is finished nevertheless":   {subject: done(), seen: state.Supervision{Node: "n1", Heartbeat: live}, at: time.Hour, phase: v1alpha1.PhaseCompleted},
		"a finished job of a failed owner is removed after it all": {subject: done(), seen: state.Supervision{Owner: state.OwnerFailed}, at: 7 * time.Hour, phase: v1alpha1.PhaseCompleted, action: state.ActionRemove},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			if c.action == "" {
				c.action = state.ActionNone
			}

			d := state.Supervise(c.subject, c.seen, created.Add(c.at), state.DefaultBounds())
			assert.Equal(t, c.phase, d.Phase)
			assert.Equal(t, c.reason, d.Reason)
			assert.Equal(t, c.action, d.Action)

			if c.action == state.ActionNone && !d.Phase.Terminal() {
				assert.Positive(t, d.RequeueAfter)
			}
		})
	}
}

func done() state.Subject {
	at := metav1.NewTime(created)

	return state.Subject{Status: v1alpha1.JobStatus{Phase: v1alpha1.PhaseCompleted, CompletionTimestamp: &at}}
}

func TestApply(t *testing.T) {
	t.Parallel()

	var s v1alpha1.JobStatus

	waits := state.Decision{Phase: v1alpha1.PhaseAccepted, Reason: state.ReasonPodUnscheduled, Message: "m"}
	require.True(t, state.Apply(&s, waits, created))
	require.False(t, state.Apply(&s, waits, created.Add(time.Minute)), "the same decision changes nothing")

	since, ok := state.WaitingSince(s, state.ReasonPodUnscheduled)
	require.True(t, ok)
	assert.Equal(t, created, since)

	waits.Message = "other words"
	require.True(t, state.Apply(&s, waits, created.Add(time.Minute)))

	since, _ = state.WaitingSince(s, state.ReasonPodUnscheduled)
	assert.Equal(t, created, since, "other words do not begin a new wait")

	waits.Reason = state.ReasonGateNotReached
	require.True(t, state.Apply(&s, waits, created.Add(2*time.Minute)))

	since, _ = state.WaitingSince(s, state.ReasonGateNotReached)
	assert.Equal(t, created.Add(2*time.Minute), since, "another reason does")

	require.True(t, state.Apply(&s, state.Decision{Phase: v1alpha1.PhaseInProgress, Reason: state.ReasonRunning}, created.Add(3*time.Minute)))
	require.True(t, state.Apply(&s, state.Decision{Phase: v1alpha1.PhaseCompleted, Reason: state.ReasonCompleted}, created.Add(4*time.Minute)))
	assert.Equal(t, created, s.AcceptedTimestamp.Time)
	assert.Equal(t, created.Add(3*time.Minute), s.StartTimestamp.Time)
	assert.Equal(t, created.Add(4*time.Minute), s.CompletionTimestamp.Time)

	require.False(t, state.Apply(&s, state.Decision{Phase: v1alpha1.PhaseFailed, Reason: "X"}, created.Add(5*time.Minute)), "a final phase is never left")
	assert.Equal(t, v1alpha1.PhaseCompleted, s.Phase)
}

func TestNextGate(t *testing.T) {
	t.Parallel()

	status := func(p v1alpha1.Phase, reason string) *v1alpha1.JobStatus {
		return &v1alpha1.JobStatus{Phase: p, Reason: reason, Message: "why", Progress: v1alpha1.Progress{BytesDone: 512, TotalBytes: 2048, FilesDone: 1, TotalFiles: 4}}
	}

	for name, c := range map[string]struct {
		jobs     []state.GateJob
		waiting  time.Duration
		state    state.GateState
		progress string
		message  string
	}{
		"all done opens":  {jobs: []state.GateJob{{"b", "vr-2", status("Completed", "")}, {"a", "vr-1", status("Completed", "")}}, state: state.GateOpen, progress: "a: done; b: done"},
		"no volume opens": {state: state.GateOpen},
		"one under way waits": {
			jobs:  []state.GateJob{{"a", "vr-1", status("Completed", "")}, {"b", "vr-2", status("InProgress", "")}},
			state: state.GateWaiting, progress: "a: done; b: 512 B of 2.0 KiB restored (25%), 1 of 4 files",
		},
		"one that is not begun says why": {jobs: []state.GateJob{{"a", "vr-1", status("Accepted", "Queued")}}, state: state.GateWaiting, progress: "a: Accepted (why)"},
		"one failed keeps it closed, also if others run": {
			jobs:  []state.GateJob{{"a", "vr-1", status("Failed", "WrongKey")}, {"b", "vr-2", status("InProgress", "")}},
			state: state.GateFailed, progress: "a: Failed (WrongKey); b: 512 B of 2.0 KiB restored (25%), 1 of 4 files",
			message: "volume a: VolumeRestore vr-1: Failed: WrongKey: why",
		},
		"one canceled keeps it closed": {
			jobs: []state.GateJob{{"a", "vr-1", status("Canceled", "CancelRequested")}}, state: state.GateFailed,
			progress: "a: Canceled (CancelRequested)", message: "volume a: VolumeRestore vr-1: Canceled: CancelRequested: why",
		},
		"a missing job is waited for": {jobs: []state.GateJob{{"a", "vr-1", nil}}, waiting: time.Minute, state: state.GateWaiting, progress: "a: VolumeRestore vr-1 not found"},
		"a job that stays missing keeps it closed": {
			jobs: []state.GateJob{{"a", "vr-1", nil}}, waiting: 2 * time.Minute, state: state.GateFailed,
			progress: "a: VolumeRestore vr-1 not found", message: "volume a: there is no VolumeRestore vr-1 that fills it; restore the pod again",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			d := state.NextGate(c.jobs, c.waiting, state.DefaultBounds())
			assert.Equal(t, c.state, d.State)
			assert.Equal(t, c.progress, d.Progress)
			assert.Equal(t, c.message, d.Message)
		})
	}
}
