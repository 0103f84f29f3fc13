package state_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/state"
)

const stagedJob = "vb-1"

// stage is how a job names its staging pod.
var stage = v1alpha1.PodReference{Name: "stage", UID: "stage-uid"}

func claimedBackup(mutate ...func(*v1alpha1.VolumeBackup)) *v1alpha1.VolumeBackup {
	j := &v1alpha1.VolumeBackup{}
	j.Name, j.CreationTimestamp.Time = stagedJob, created
	j.Spec.Volume = v1alpha1.VolumeReference{
		Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: "data", UID: "c1"},
	}

	for _, m := range mutate {
		m(j)
	}

	return j
}

func waits(reason string, since time.Time) func(*v1alpha1.VolumeBackup) {
	return func(j *v1alpha1.VolumeBackup) {
		state.Apply(&j.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseAccepted, Reason: reason}, since)
	}
}

// claimPod returns a running pod on n1 that mounts the claim.
func claimPod(name string, mutate ...func(*state.TargetPod)) state.TargetPod {
	p := state.TargetPod{Name: name, UID: name + "-uid", Node: "n1", Created: created, Running: true}
	for _, m := range mutate {
		m(&p)
	}

	return p
}

func stagePod(mutate ...func(*state.TargetPod)) state.TargetPod {
	return claimPod("stage", append([]func(*state.TargetPod){func(p *state.TargetPod) { p.StagedFor, p.Gate = stagedJob, state.GateThere }}, mutate...)...)
}

func elsewhere(p *state.TargetPod)      { p.Node = "n2" }
func pending(p *state.TargetPod)        { p.Running, p.Node = false, "" }
func starting(p *state.TargetPod)       { p.Running, p.Gate = false, state.GateAhead }
func going(p *state.TargetPod)          { p.Deleting = true }
func over(p *state.TargetPod)           { p.Running, p.Finished = false, true }
func ofAnother(p *state.TargetPod)      { p.StagedFor = "vb-2" }
func evicted(p *state.TargetPod)        { p.Running, p.Finished, p.Disrupted = false, true, true }
func later(p *state.TargetPod)          { p.Created = created.Add(time.Second) }
func pullFails(p *state.TargetPod)      { p.Detail.Reason = state.ReasonStagingImagePull }
func ofOnePod(c *state.Claim)           { c.OnePod = true }
func shared(c *state.Claim)             { c.Shared = true }
func unbound(c *state.Claim)            { c.Bound = false }
func lost(c *state.Claim)               { c.Bound, c.Lost = false, true }
func loose(c *state.Claim)              { c.Loose = "pv" }
func block(c *state.Claim)              { c.Block = true }
func replaced(c *state.Claim)           { c.UID = "c2" }
func gone(c *state.Claim)               { *c = state.Claim{} }
func cancelIt(j *v1alpha1.VolumeBackup) { j.Spec.Cancel = true }

func TestRouteClaim(t *testing.T) {
	t.Parallel()

	const atBound = 5 * time.Minute

	for name, c := range map[string]struct {
		mutate []func(*v1alpha1.VolumeBackup)
		owner  state.Owner
		claim  func(*state.Claim)
		pods   []state.TargetPod
		after  time.Duration
		silent bool

		phase  v1alpha1.Phase
		reason string
		action state.Action
		route  string
	}{
		"no pod mounts it: a staging pod is made":            {phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"its pods have completed":                            {pods: []state.TargetPod{claimPod("a", over)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"its pod is being deleted":                           {pods: []state.TargetPod{claimPod("a", going)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"a pod runs by now":                                  {pods: []state.TargetPod{claimPod("b"), claimPod("a")}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, action: state.ActionRoute, route: "a"},
		"the staging pod of another job mounts it":           {pods: []state.TargetPod{claimPod("s", ofAnother)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimHeld, action: state.ActionNone},
		"the staging pod of another job mounts a shared one": {claim: shared, pods: []state.TargetPod{claimPod("s", ofAnother)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"the staging pod runs":                               {pods: []state.TargetPod{stagePod()}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, action: state.ActionRoute, route: "stage"},
		"the staging pod runs where no daemon lives":         {pods: []state.TargetPod{stagePod()}, silent: true, phase: v1alpha1.PhaseAccepted, reason: state.ReasonNoDaemonOnNode, action: state.ActionNone},
		"the staging pod has no node":                        {pods: []state.TargetPod{stagePod(pending)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingUnscheduled, action: state.ActionNone},
		"the staging pod never gets a node":                  {pods: []state.TargetPod{stagePod(pending)}, after: atBound, phase: v1alpha1.PhaseFailed, reason: state.ReasonStagingUnscheduled, action: state.ActionNone},
		"the staging pod's image can't be pulled":            {pods: []state.TargetPod{stagePod(starting, pullFails)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingImagePull, action: state.ActionNone},
		"the staging pod's image can never be pulled":        {pods: []state.TargetPod{stagePod(starting, pullFails)}, after: atBound, phase: v1alpha1.PhaseFailed, reason: state.ReasonStagingImagePull, action: state.ActionNone},
		"the staging pod starts":                             {pods: []state.TargetPod{stagePod(starting)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingNotStarted, action: state.ActionNone},
		"the staging pod never starts":                       {pods: []state.TargetPod{stagePod(starting)}, after: atBound, phase: v1alpha1.PhaseFailed, reason: state.ReasonStagingNotStarted, action: state.ActionNone},
		"the staging pod has ended":                          {pods: []state.TargetPod{stagePod(over)}, phase: v1alpha1.PhaseFailed, reason: state.ReasonStagingEnded, action: state.ActionNone},
		"the staging pod was evicted":                        {pods: []state.TargetPod{stagePod(evicted)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingLost, action: state.ActionUnstage},
		"the staging pod was just lost":                      {mutate: []func(*v1alpha1.VolumeBackup){waits(state.ReasonStagingLost, created)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingLost, action: state.ActionNone},
		"the staging pod was lost some seconds ago":          {mutate: []func(*v1alpha1.VolumeBackup){waits(state.ReasonStagingLost, created)}, after: 5 * time.Second, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"another job's was made at the same time, its name comes first": {
			pods: []state.TargetPod{stagePod(starting), claimPod("s", ofAnother, starting, elsewhere)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimHeld, action: state.ActionUnstage,
		},
		"another job's was made at the same time, its name comes last": {
			pods: []state.TargetPod{stagePod(starting), claimPod("t", ofAnother, starting, elsewhere)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingNotStarted, action: state.ActionNone,
		},
		"another job's was made later and runs": {
			pods: []state.TargetPod{stagePod(starting), claimPod("t", ofAnother, elsewhere, later)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimHeld, action: state.ActionUnstage,
		},
		"another job's was made before, and this one's runs": {
			pods: []state.TargetPod{stagePod(later), claimPod("s", ofAnother, starting, elsewhere)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, action: state.ActionRoute, route: "stage",
		},
		"another job's was made before, for a shared one": {
			claim: shared, pods: []state.TargetPod{stagePod(starting), claimPod("s", ofAnother, elsewhere)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingNotStarted, action: state.ActionNone,
		},
		"another job's was made before, and is going": {
			pods: []state.TargetPod{stagePod(starting), claimPod("s", ofAnother, elsewhere, going)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingNotStarted, action: state.ActionNone,
		},
		"the staging pod is going":               {pods: []state.TargetPod{stagePod(going)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonWaitingForPodEnd, action: state.ActionNone},
		"a staging pod that was of use is going": {pods: []state.TargetPod{stagePod(going)}, after: atBound, phase: v1alpha1.PhaseAccepted, reason: state.ReasonWaitingForPodEnd, action: state.ActionNone},
		"a staging pod never goes": {
			mutate: []func(*v1alpha1.VolumeBackup){waits(state.ReasonWaitingForPodEnd, created)}, pods: []state.TargetPod{stagePod(going)}, after: atBound,
			phase: v1alpha1.PhaseFailed, reason: state.ReasonWaitingForPodEnd, action: state.ActionNone,
		},
		"a pod that goes holds it on another node":            {pods: []state.TargetPod{stagePod(starting), claimPod("a", elsewhere, going)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimHeld, action: state.ActionNone},
		"a pod that goes has it on the same node":             {pods: []state.TargetPod{stagePod(starting), claimPod("a", going)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingNotStarted, action: state.ActionNone},
		"a pod that goes holds it alone":                      {claim: ofOnePod, pods: []state.TargetPod{stagePod(starting), claimPod("a", going)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimHeld, action: state.ActionNone},
		"a pod that goes never lets go of it":                 {pods: []state.TargetPod{stagePod(starting), claimPod("a", elsewhere, going)}, after: atBound, phase: v1alpha1.PhaseFailed, reason: state.ReasonClaimHeld, action: state.ActionNone},
		"a pending pod wants it":                              {pods: []state.TargetPod{stagePod(), claimPod("a", pending)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimWanted, action: state.ActionUnstage},
		"a pending pod wants a shared one":                    {claim: shared, pods: []state.TargetPod{stagePod(), claimPod("a", pending)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, action: state.ActionRoute, route: "stage"},
		"a pod on another node wants it":                      {pods: []state.TargetPod{stagePod(), claimPod("a", elsewhere)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimWanted, action: state.ActionUnstage},
		"a pod runs beside the staging pod":                   {pods: []state.TargetPod{stagePod(), claimPod("a")}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, action: state.ActionRoute, route: "stage"},
		"a pod on the same node wants it alone":               {claim: ofOnePod, pods: []state.TargetPod{stagePod(), claimPod("a", starting)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimWanted, action: state.ActionUnstage},
		"a pending pod wants it, and the staging pod is gone": {pods: []state.TargetPod{claimPod("a", pending)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimWanted, action: state.ActionNone},
		"a pod that wanted it never gets a node":              {mutate: []func(*v1alpha1.VolumeBackup){waits(state.ReasonClaimWanted, created)}, pods: []state.TargetPod{claimPod("a", pending)}, after: atBound, phase: v1alpha1.PhaseFailed, reason: state.ReasonClaimWanted, action: state.ActionNone},
		"a pod that wanted it has a node and never runs":      {mutate: []func(*v1alpha1.VolumeBackup){waits(state.ReasonClaimWanted, created)}, pods: []state.TargetPod{claimPod("a", starting)}, after: atBound, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, action: state.ActionRoute, route: "a"},
		"the claim is pending":                                {claim: unbound, phase: v1alpha1.PhaseFailed, reason: state.ReasonClaimPending, action: state.ActionNone},
		"the claim is lost":                                   {claim: lost, phase: v1alpha1.PhaseFailed, reason: state.ReasonClaimLost, action: state.ActionNone},
		"the claim is gone":                                   {claim: gone, phase: v1alpha1.PhaseFailed, reason: state.ReasonClaimNotFound, action: state.ActionNone},
		"the claim was replaced":                              {claim: replaced, phase: v1alpha1.PhaseFailed, reason: state.ReasonVolumeMismatch, action: state.ActionNone},
		"the claim is a raw block device":                     {claim: block, phase: v1alpha1.PhaseFailed, reason: state.ReasonVolumeUnsupported, action: state.ActionNone},
		"it is cancelled":                                     {mutate: []func(*v1alpha1.VolumeBackup){cancelIt}, pods: []state.TargetPod{stagePod()}, phase: v1alpha1.PhaseCanceled, reason: state.ReasonCancelRequested, action: state.ActionNone},
		"its Backup has ended":                                {owner: state.OwnerDone, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"its Backup is completed":                             {owner: state.OwnerCompleted, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"its Backup is being deleted":                         {owner: state.OwnerDeleting, phase: v1alpha1.PhaseCanceled, reason: state.ReasonOwnerNotRunning, action: state.ActionNone},
		"its Backup is gone":                                  {owner: state.OwnerGone, phase: v1alpha1.PhaseCanceled, reason: state.ReasonOwnerGone, action: state.ActionNone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			now := created.Add(c.after + time.Second)
			v := state.ClaimView{
				Owner: state.OwnerWaiting, Pods: c.pods,
				Claim:      state.Claim{Found: true, UID: "c1", Bound: true},
				Heartbeats: map[string]state.Heartbeat{"n1": {Renewed: now}},
			}

			if c.owner != state.OwnerUnknown {
				v.Owner = c.owner
			}

			if c.claim != nil {
				c.claim(&v.Claim)
			}

			if c.silent {
				v.Heartbeats = nil
			}

			d := state.RouteClaim(claimedBackup(c.mutate...), v, now, state.DefaultBounds())
			assert.Equal(t, c.phase, d.Phase, d.Message)
			assert.Equal(t, c.reason, d.Reason, d.Message)
			assert.Equal(t, c.action, d.Action, d.Message)

			if c.route == "" {
				assert.Nil(t, d.Route)
				return
			}

			assert.Equal(t, &state.Route{Node: "n1", Pod: v1alpha1.PodReference{Name: c.route, UID: types.UID(c.route + "-uid")}}, d.Route)
		})
	}
}

func TestAJobTakenFromItsNodeGoesOnInProgress(t *testing.T) {
	t.Parallel()

	j := claimedBackup()
	j.Status.Phase = v1alpha1.PhaseInProgress

	f := state.Yields(j.Name, j.Status.JobStatus, state.StagedView{Through: stage, Claim: state.Claim{Found: true}, Pods: []state.TargetPod{stagePod(), claimPod("a", pending)}})
	assert.Equal(t, state.ReasonClaimWanted, f.Reason)

	began := metav1.NewTime(created)
	b := state.DefaultBounds()
	j.Status.StartTimestamp = &began

	d := state.Yielding(j.Status.JobStatus, *f, created.Add(b.Interruptions-time.Second), b)
	assert.Equal(t, v1alpha1.PhaseInProgress, d.Phase)
	assert.Equal(t, state.ActionUnstage, d.Action)

	d = state.Yielding(j.Status.JobStatus, *f, created.Add(b.Interruptions), b)
	assert.Equal(t, v1alpha1.PhaseFailed, d.Phase, "it doesn't go on for ever")
	assert.Equal(t, state.ReasonClaimWanted, d.Reason)
}

func TestARunThatIsTakenAwayIsNoAttempt(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		status v1alpha1.JobStatus
		want   int32
	}{
		"one that runs":                  {v1alpha1.JobStatus{Reason: state.ReasonRunning, Attempts: 2}, 1},
		"one that has failed, and waits": {v1alpha1.JobStatus{Reason: "StoreUnavailable", Attempts: 2}, 2},
		"one that the daemon has ended":  {v1alpha1.JobStatus{Reason: state.ReasonStagingLost, Attempts: 1}, 1},
		"none so far":                    {v1alpha1.JobStatus{Reason: state.ReasonRunning}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			assert.Equal(t, c.want, state.Interrupted(c.status))
		})
	}
}

func TestYields(t *testing.T) {
	t.Parallel()

	var (
		gated     = func(p *state.TargetPod) { p.Gate = state.GateAhead }
		heldBack  = func(p *state.TargetPod) { p.Gate = state.GateHeld }
		recreated = func(p *state.TargetPod) { p.UID = "another" }
		own       = func(m ...func(*state.TargetPod)) *state.TargetPod { p := stagePod(m...); return &p }
		none      = claimPod("none", ofAnother)
	)

	for name, c := range map[string]struct {
		phase   v1alpha1.Phase
		restore bool
		stage   *state.TargetPod
		pod     state.TargetPod
		want    bool
	}{
		"a backup, to nobody":                             {phase: v1alpha1.PhaseInProgress, stage: own(), pod: none},
		"a backup whose staging pod is being deleted":     {phase: v1alpha1.PhaseInProgress, stage: own(going), pod: none, want: true},
		"a backup whose staging pod was evicted":          {phase: v1alpha1.PhaseInProgress, stage: own(evicted), pod: none, want: true},
		"a backup whose staging pod is gone":              {phase: v1alpha1.PhaseInProgress, pod: none, want: true},
		"a restore whose staging pod is gone":             {phase: v1alpha1.PhaseInProgress, restore: true, pod: none, want: true},
		"a backup whose staging pod is another one":       {phase: v1alpha1.PhaseInProgress, stage: own(recreated), pod: none, want: true},
		"a backup that has ended, its staging pod gone":   {phase: v1alpha1.PhaseCompleted, pod: none},
		"a backup, to a pending pod":                      {phase: v1alpha1.PhaseInProgress, stage: own(), pod: claimPod("a", pending), want: true},
		"a backup, to none beside it":                     {phase: v1alpha1.PhaseInProgress, stage: own(), pod: claimPod("a")},
		"a backup that has ended":                         {phase: v1alpha1.PhaseCompleted, stage: own(), pod: claimPod("a", pending)},
		"a backup that is being cancelled":                {phase: v1alpha1.PhaseCanceling, stage: own(), pod: claimPod("a", pending)},
		"a restore, to a gated pod":                       {phase: v1alpha1.PhaseInProgress, restore: true, stage: own(), pod: claimPod("a", gated), want: true},
		"a restore, not to a pod that has no gate":        {phase: v1alpha1.PhaseInProgress, restore: true, stage: own(), pod: claimPod("a", pending)},
		"a restore, not to a pod that is held back":       {phase: v1alpha1.PhaseInProgress, restore: true, stage: own(), pod: claimPod("a", pending, heldBack)},
		"a restore, not to a gated pod that goes already": {phase: v1alpha1.PhaseInProgress, restore: true, stage: own(), pod: claimPod("a", gated, going)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			pods := []state.TargetPod{c.pod}
			if c.stage != nil {
				pods = append(pods, *c.stage)
			}

			f := state.Yields(stagedJob, v1alpha1.JobStatus{Phase: c.phase}, state.StagedView{Through: stage, Claim: state.Claim{Found: true}, Pods: pods, Restore: c.restore})
			assert.Equal(t, c.want, f != nil)
		})
	}
}

func TestStagingRefused(t *testing.T) {
	t.Parallel()

	j := claimedBackup()
	b := state.DefaultBounds()

	assert.Equal(t, v1alpha1.PhaseFailed, state.StagingRefused(j.Status.JobStatus, "violates PodSecurity", false, created, b).Phase)

	first := state.StagingRefused(j.Status.JobStatus, "exceeded quota: q", true, created, b)
	assert.Equal(t, v1alpha1.PhaseAccepted, first.Phase)
	assert.Contains(t, first.Message, "exceeded quota: q")
	state.Apply(&j.Status.JobStatus, first, created)

	last := state.StagingRefused(j.Status.JobStatus, "exceeded quota: q", true, created.Add(b.Staging), b)
	assert.Equal(t, v1alpha1.PhaseFailed, last.Phase)
	assert.Equal(t, state.ReasonStagingRefused, last.Reason)
}

func TestARestoreOfAClaimWithoutAPod(t *testing.T) {
	t.Parallel()

	var (
		gated   = func(p *state.TargetPod) { p.Gate = state.GateThere }
		held    = func(p *state.TargetPod) { p.Gate = state.GateHeld }
		missing = func(j *v1alpha1.VolumeRestore) {
			state.Apply(&j.Status.JobStatus, state.Decision{Phase: v1alpha1.PhaseAccepted, Reason: state.ReasonClaimNotFound}, created.Add(-2*time.Minute))
		}
	)

	for name, c := range map[string]struct {
		mutate func(*v1alpha1.VolumeRestore)
		owner  state.Owner
		claim  func(*state.Claim)
		pods   []state.TargetPod

		phase  v1alpha1.Phase
		reason string
		action state.Action
		route  string
		nodes  int
	}{
		"its Restore still makes objects":                      {owner: state.OwnerMakingObjects, phase: v1alpha1.PhaseNew, reason: state.ReasonWaitingForPods, action: state.ActionNone},
		"its Restore has made all: a staging pod is made":      {owner: state.OwnerWaiting, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"also for a pending claim, which that has provisioned": {owner: state.OwnerWaiting, claim: unbound, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"also when its Restore waits no more":                  {owner: state.OwnerDone, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"the claim is not there":                               {owner: state.OwnerWaiting, claim: gone, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimNotFound, action: state.ActionNone},
		"the claim never comes":                                {owner: state.OwnerWaiting, claim: gone, mutate: missing, phase: v1alpha1.PhaseFailed, reason: state.ReasonClaimNotFound, action: state.ActionNone},
		"its volume is another folder on each node":            {owner: state.OwnerWaiting, claim: loose, nodes: 2, phase: v1alpha1.PhaseFailed, reason: state.ReasonVolumeUnsupported, action: state.ActionNone},
		"it is one when the staging pod has had it made":       {owner: state.OwnerWaiting, claim: loose, nodes: 2, pods: []state.TargetPod{stagePod()}, phase: v1alpha1.PhaseFailed, reason: state.ReasonVolumeUnsupported, action: state.ActionNone},
		"it is one, and a pod that mounts it may yet be made":  {owner: state.OwnerMakingObjects, claim: loose, nodes: 2, phase: v1alpha1.PhaseNew, reason: state.ReasonWaitingForPods, action: state.ActionNone},
		"it is one, and there is only one node":                {owner: state.OwnerWaiting, claim: loose, nodes: 1, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStaging, action: state.ActionStage},
		"the claim is lost":                                    {owner: state.OwnerWaiting, claim: lost, phase: v1alpha1.PhaseFailed, reason: state.ReasonClaimLost, action: state.ActionNone},
		"the staging pod starts":                               {owner: state.OwnerWaiting, pods: []state.TargetPod{stagePod(starting)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingNotStarted, action: state.ActionNone},
		"the staging pod was evicted":                          {owner: state.OwnerWaiting, pods: []state.TargetPod{stagePod(evicted)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonStagingLost, action: state.ActionUnstage},
		"a backup's staging pod was made before":               {owner: state.OwnerWaiting, pods: []state.TargetPod{stagePod(starting, later), claimPod("t", ofAnother, starting)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimHeld, action: state.ActionUnstage},
		"the staging pod runs":                                 {owner: state.OwnerWaiting, pods: []state.TargetPod{stagePod()}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, action: state.ActionRoute, route: "stage"},
		"the staging pod has ended":                            {owner: state.OwnerWaiting, pods: []state.TargetPod{stagePod(over)}, phase: v1alpha1.PhaseFailed, reason: state.ReasonStagingEnded, action: state.ActionNone},
		"a pod without a gate mounts it, too":                  {owner: state.OwnerWaiting, pods: []state.TargetPod{stagePod(), claimPod("a")}, phase: v1alpha1.PhaseFailed, reason: state.ReasonUngatedPod, action: state.ActionNone},
		"a gated pod takes over":                               {owner: state.OwnerWaiting, pods: []state.TargetPod{stagePod(), claimPod("a", gated)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimWanted, action: state.ActionUnstage},
		"a gated pod takes over, beside one that is held back": {owner: state.OwnerWaiting, pods: []state.TargetPod{stagePod(), claimPod("a", held), claimPod("b", gated)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimWanted, action: state.ActionUnstage},
		"a pod that is held back doesn't":                      {owner: state.OwnerWaiting, pods: []state.TargetPod{stagePod(), claimPod("a", held)}, phase: v1alpha1.PhaseFailed, reason: state.ReasonUngatedPod, action: state.ActionNone},
		"a gated pod has taken over":                           {owner: state.OwnerWaiting, pods: []state.TargetPod{claimPod("a", gated)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonRouted, action: state.ActionRoute, route: "a"},
		"a backup's staging pod mounts it":                     {owner: state.OwnerWaiting, pods: []state.TargetPod{claimPod("s", ofAnother)}, phase: v1alpha1.PhaseAccepted, reason: state.ReasonClaimHeld, action: state.ActionNone},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			j := &v1alpha1.VolumeRestore{}
			j.Name, j.CreationTimestamp.Time = stagedJob, created
			j.Spec.Target = v1alpha1.VolumeReference{Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "app", Claim: &v1alpha1.ClaimReference{Name: "data"}}

			if c.mutate != nil {
				c.mutate(j)
			}

			v := state.RestoreView{
				Owner: c.owner, Pods: c.pods, Claim: state.Claim{Found: true, UID: "c1", Bound: true},
				Heartbeats: map[string]state.Heartbeat{"n1": {Renewed: created}}, Nodes: c.nodes,
			}
			if c.claim != nil {
				c.claim(&v.Claim)
			}

			d := state.RouteRestore(j, v, created, state.DefaultBounds())
			assert.Equal(t, c.phase, d.Phase, d.Message)
			assert.Equal(t, c.reason, d.Reason, d.Message)
			assert.Equal(t, c.action, d.Action, d.Message)

			if c.route != "" {
				assert.Equal(t, c.route, d.Route.Pod.Name)
			}
		})
	}
}
