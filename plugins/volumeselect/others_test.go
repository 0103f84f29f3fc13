package volumeselect

import (
	"testing"

	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/settings"
)

func acting(action string) string {
	return "version: v1\nvolumePolicies:\n- conditions: {}\n  action: {type: " + action + "}"
}

func onVolume(c Claim, source corev1.PersistentVolumeSource) Claim {
	c.Volume.Spec.PersistentVolumeSource = source

	return c
}

func TestAnOptOutDefaultTakesOverWhereNobodyElseTakesTheVolume(t *testing.T) {
	hostPath := corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/x"}}
	ebs := corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com"}}
	web := func() *corev1.Pod { return running("web", "", claimVolume("data", "data")) }
	pending := web()
	pending.Status.Phase = corev1.PodPending

	snapshotted := claimOf(web())
	snapshotted.Snapshotted = true

	tests := map[string]struct {
		claim  Claim
		s      Settings
		policy string

		move   bool
		reason Reason
		level  Level
	}{
		"Velero takes everything, and passes over a hostPath":                {claim: onVolume(claimOf(web()), hostPath), s: Settings{CoreTakesAll: true}, reason: ReasonHostPath, level: Warning},
		"the policy gives Velero a hostPath, which it passes over":           {claim: onVolume(claimOf(web()), hostPath), policy: acting("fs-backup"), reason: ReasonHostPath, level: Warning},
		"the policy wants a snapshot, and there is none":                     {claim: claimOf(web()), policy: acting("snapshot"), move: true, reason: ReasonDefault},
		"the policy wants a snapshot, and there is one":                      {claim: snapshotted, policy: acting("snapshot"), reason: ReasonLeftToSnapshot},
		"the policy wants a snapshot, and somebody takes snapshots":          {claim: claimOf(web()), s: Settings{Snapshotters: []string{"x/unknown"}}, policy: acting("snapshot"), reason: ReasonLeftToSnapshot},
		"a snapshotter leaves it to a file-system backup that can't take it": {claim: onVolume(claimOf(pending), ebs), s: Settings{CoreTakesAll: true, Snapshotters: []string{"velero.io/aws"}}, move: true, reason: ReasonDefault},
		"a snapshotter takes what the file-system backup leaves to it":       {claim: onVolume(claimOf(pending), ebs), s: Settings{CoreTakesAll: true, CoreLeavesClaims: true, Snapshotters: []string{"velero.io/aws"}}, reason: ReasonLeftToSnapshot},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.s.Own.DefaultVolumes = settings.OptOut
			if tt.policy != "" {
				tt.s.Policies = parse(t, tt.policy)
			}

			v, _ := OfClaim(tt.claim, tt.s)
			assert.Equal(t, tt.move, v.Move, v.Message)
			assert.Equal(t, tt.reason, v.Reason, v.Message)
			assert.Equal(t, tt.level, v.Level, v.Message)
		})
	}

	t.Run("the policy wants a snapshot of what has no claim", func(t *testing.T) {
		pod := running("web", "", emptyDir("cache"))
		v := Pod(pod, &pod.Spec.Volumes[0], Settings{Own: settings.Settings{DefaultVolumes: settings.OptOut}, Policies: parse(t, acting("snapshot")), Snapshotters: []string{"x/y"}})
		assert.True(t, v.Move)
		assert.Contains(t, v.Message, "says snapshot, but Velero can't")
	})

	t.Run("an opt-in default says why nobody takes it", func(t *testing.T) {
		v, _ := OfClaim(claimOf(web()), Settings{Policies: parse(t, acting("snapshot"))})
		assert.Equal(t, ReasonNotSelected, v.Reason)
		assert.Equal(t, Warning, v.Level)
		assert.Contains(t, v.Message, "says snapshot, but Velero can't")
	})
}

func TestAnOptOutDefaultLeavesTheScratchOfSystemPodsAlone(t *testing.T) {
	s := Settings{Own: settings.Settings{DefaultVolumes: settings.OptOut}, VeleroNamespace: "backups"}

	for namespace, reason := range map[string]Reason{"kube-system": ReasonSystemPod, "backups": ReasonSystemPod, "shop": ReasonDefault} {
		t.Run("in namespace "+namespace, func(t *testing.T) {
			pod := running("web", "", emptyDir("cache"), claimVolume("data", "data"))
			pod.Namespace = namespace
			c := claimOf(pod)
			c.Claim.Namespace = namespace

			v := Pod(pod, &pod.Spec.Volumes[0], s)
			assert.Equal(t, reason, v.Reason)
			assert.Equal(t, Info, v.Level)
			assert.False(t, v.Lost())

			v, _ = OfClaim(c, s)
			assert.Equal(t, ReasonDefault, v.Reason, "what outlives the pod is moved everywhere")

			pod.Annotations[contract.AnnotationBackupVolumes] = "cache"
			v = Pod(pod, &pod.Spec.Volumes[0], s)
			assert.True(t, v.Move, "who names it gets it")
		})
	}
}

func TestAClaimThatIsKeptOutOfBackupsIsNotMovedByDefault(t *testing.T) {
	c := claimOf(running("web", "", claimVolume("data", "data")))
	c.Claim.Labels = map[string]string{contract.LabelExcludeFromBackup: "true"}
	s := Settings{Own: settings.Settings{DefaultVolumes: settings.OptOut}}

	v, _ := OfClaim(c, s)
	assert.Equal(t, ReasonExcluded, v.Reason)
	assert.Equal(t, Info, v.Level)

	c.Pods[0].Annotations[contract.AnnotationBackupVolumes] = "data"
	v, _ = OfClaim(c, s)
	assert.True(t, v.Move, "who names it gets it")
}

func TestAClaimThatARestoreHasNotFilledIsNotMoved(t *testing.T) {
	gated := running("web", "data", claimVolume("data", "data"))
	gated.Status.Phase = corev1.PodPending
	gated.Spec.InitContainers = []corev1.Container{{Name: contract.GateContainer}}

	unscheduled := gated.DeepCopy()
	unscheduled.Spec.NodeName = ""

	failed := gated.DeepCopy()
	failed.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: contract.GateContainer, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 1}}}}

	opened := gated.DeepCopy()
	opened.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: contract.GateContainer, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}

	runs := opened.DeepCopy()
	runs.Status.Phase = corev1.PodRunning

	held := running("web", "data", claimVolume("data", "data"))
	held.Status.Phase, held.Spec.NodeName = corev1.PodPending, ""
	held.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: contract.SchedulingGate}}

	for name, tt := range map[string]struct {
		pod    *corev1.Pod
		move   bool
		reason Reason
	}{
		"its pod is held back":                 {pod: held, reason: ReasonRestoring},
		"its pod waits at the gate":            {pod: gated, reason: ReasonRestoring},
		"its pod isn't scheduled yet":          {pod: unscheduled, reason: ReasonRestoring},
		"the restore failed":                   {pod: failed, reason: ReasonRestoring},
		"the gate is open":                     {pod: opened, move: true, reason: ReasonAnnotation},
		"its pod runs with the gate behind it": {pod: runs, move: true, reason: ReasonAnnotation},
	} {
		t.Run(name, func(t *testing.T) {
			v, _ := OfClaim(claimOf(tt.pod), Settings{})
			assert.Equal(t, tt.move, v.Move, v.Message)
			assert.Equal(t, tt.reason, v.Reason)
			assert.Equal(t, !tt.move, v.Lost(), "a restore of this backup must say that the data isn't in it")
		})
	}
}

func TestWhatARestoreHasNotFilledIsAsLoudAsItWasAskedFor(t *testing.T) {
	optOut := Settings{Own: settings.Settings{DefaultVolumes: settings.OptOut}}
	named := running("web", "data", claimVolume("data", "data"))
	unnamed := running("web", "", claimVolume("data", "data"))

	for name, tt := range map[string]struct {
		pod      *corev1.Pod
		change   func(*Claim)
		settings Settings
		level    Level
		lost     bool
	}{
		"through a running pod, by name": {pod: named, level: Error, lost: true},
		"by default":                     {pod: unnamed, settings: optOut, level: Warning, lost: true},
		"not yet bound": {pod: named, level: Error, lost: true, change: func(c *Claim) {
			c.Volume, c.Claim.Status.Phase = nil, corev1.ClaimPending
		}},
		"through a staging pod": {settings: optOut, level: Warning, lost: true},
		"nobody asks for it":    {pod: unnamed, level: Warning},
	} {
		t.Run(name, func(t *testing.T) {
			c := claimOf()
			if tt.pod != nil {
				c = claimOf(tt.pod)
			}

			c.Unfilled = "VolumeRestore vr-1, which fills it, is InProgress"

			if tt.change != nil {
				tt.change(&c)
			}

			v, carrier := OfClaim(c, tt.settings)
			assert.False(t, v.Move, v.Message)
			assert.Nil(t, carrier.Pod)
			assert.Equal(t, tt.level, v.Level)
			assert.Equal(t, tt.lost, v.Lost())

			if tt.lost {
				assert.Equal(t, ReasonRestoring, v.Reason)
				assert.Contains(t, v.Message, "vr-1")
			}
		})
	}

	held := running("web", "cache", corev1.Volume{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	held.Status.Phase = corev1.PodPending
	held.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: contract.SchedulingGate}}

	v := Pod(held, &held.Spec.Volumes[0], Settings{})
	assert.Equal(t, ReasonRestoring, v.Reason)
	assert.Equal(t, Error, v.Level, "what was to be restored dies with the pod")
}

func TestAPolicyForEphemeralVolumesMatchesTheirClaims(t *testing.T) {
	owned := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{OwnerReferences: []metav1.OwnerReference{{Kind: "Pod", Name: "web", Controller: ptr.To(true)}}}}

	for types, want := range map[string][2]bool{"ephemeral": {true, false}, "nfs": {true, true}, "emptyDir": {false, false}} {
		t.Run(types, func(t *testing.T) {
			p := parse(t, one("    volumeTypes: ["+types+"]"))
			assert.Equal(t, want[0], p.Match(TraitsOf(nfsVolume(), owned, nil)) != nil)
			assert.Equal(t, want[1], p.Match(TraitsOf(nfsVolume(), &corev1.PersistentVolumeClaim{}, nil)) != nil)
		})
	}
}
