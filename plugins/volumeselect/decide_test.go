package volumeselect

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
)

func emptyDir(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
}

func claimVolume(name, claim string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
	}}
}

// running is a pod on a node that mounts all of the volumes.
func running(name, include string, volumes ...corev1.Volume) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{}},
		Spec:       corev1.PodSpec{NodeName: "n", Volumes: volumes, Containers: []corev1.Container{{Name: "c"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if include != "" {
		p.Annotations[contract.AnnotationBackupVolumes] = include
	}

	for _, v := range volumes {
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: v.Name})
	}

	return p
}

func TestPod(t *testing.T) {
	hostPath := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}
	secret := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}}
	inline := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}}
	generic := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}}

	tests := map[string]struct {
		include, exclude string
		policy           string
		volume           corev1.Volume
		change           func(p *corev1.Pod)
		coreTakesAll     bool

		move    bool
		reason  Reason
		level   Level
		caution string
	}{
		"nothing asks for it":                    {volume: emptyDir("v"), reason: ReasonNotSelected},
		"its name":                               {include: "v", volume: emptyDir("v"), move: true, reason: ReasonAnnotation},
		"its name between spaces":                {include: " a , v ,", volume: emptyDir("v"), move: true, reason: ReasonAnnotation},
		"a glob":                                 {include: "v*", volume: emptyDir("v"), move: true, reason: ReasonAnnotation},
		"another name":                           {include: "w", volume: emptyDir("v"), reason: ReasonNotSelected},
		"the policy":                             {policy: one("    volumeTypes: [emptyDir]"), volume: emptyDir("v"), move: true, reason: ReasonPolicy},
		"a policy for others":                    {policy: one("    volumeTypes: [nfs]"), volume: emptyDir("v"), reason: ReasonNotSelected},
		"a glob but excluded":                    {include: "*", exclude: "v", volume: emptyDir("v"), reason: ReasonExcluded},
		"its name but excluded":                  {include: "v", exclude: "v*", volume: emptyDir("v"), reason: ReasonExcluded, caution: "counts for more"},
		"the policy but excluded":                {policy: one("    {}"), exclude: "v", volume: emptyDir("v"), reason: ReasonExcluded, caution: "counts for more"},
		"Velero takes it by its annotation, too": {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Annotations["backup.velero.io/backup-volumes"] = "v" }, move: true, reason: ReasonAnnotation, caution: "moved twice"},
		"Velero takes all, too":                  {include: "v", volume: emptyDir("v"), coreTakesAll: true, move: true, reason: ReasonAnnotation, caution: "moved twice"},
		"Velero takes all but it":                {include: "v", volume: emptyDir("v"), coreTakesAll: true, change: func(p *corev1.Pod) { p.Annotations["backup.velero.io/backup-volumes-excludes"] = "v" }, move: true, reason: ReasonAnnotation},
		"the policy keeps Velero from it":        {policy: one("    {}"), volume: emptyDir("v"), coreTakesAll: true, move: true, reason: ReasonPolicy},
		"the policy gives it to Velero, too":     {include: "v", policy: "version: v1\nvolumePolicies:\n- conditions: {}\n  action: {type: fs-backup}", volume: emptyDir("v"), move: true, reason: ReasonAnnotation, caution: "moved twice"},
		"the policy skips it":                    {include: "v", policy: "version: v1\nvolumePolicies:\n- conditions: {}\n  action: {type: skip}", volume: emptyDir("v"), move: true, reason: ReasonAnnotation, caution: "says skip"},

		"a hostPath by name":                      {include: "v", volume: hostPath, reason: ReasonUnsupported, level: Warning},
		"a secret by name":                        {include: "v", volume: secret, reason: ReasonNoData},
		"inline NFS by name":                      {include: "v", volume: inline, reason: ReasonUnsupported, level: Error},
		"inline NFS by glob":                      {include: "*", volume: inline, reason: ReasonUnsupported, level: Warning},
		"an ephemeral claim":                      {include: "v", volume: generic, reason: ReasonUnsupported, level: Error},
		"an ephemeral claim by policy":            {policy: one("    {}"), volume: generic, reason: ReasonUnsupported, level: Warning},
		"a hopeless kind in a Windows pod":        {include: "v", volume: inline, change: func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, reason: ReasonWindows, level: Warning},
		"a secret in a Windows pod":               {include: "v", volume: secret, change: func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, reason: ReasonNoData},
		"a Windows pod by affinity":               {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.Affinity = onNodes("windows") }, reason: ReasonWindows, level: Warning},
		"a pod that may be on either by affinity": {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.Affinity = onNodes("windows", "linux") }, move: true, reason: ReasonAnnotation},
		"a secret by policy":                      {policy: one("    {}"), volume: secret, reason: ReasonNoData},
		"nobody mounts it":                        {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = nil }, reason: ReasonNotMounted, level: Warning},
		"an init container mounts":                {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.InitContainers, p.Spec.Containers = p.Spec.Containers, nil }, move: true, reason: ReasonAnnotation},
		"a block device": {include: "v", volume: claimVolume("v", "c"), change: func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts, p.Spec.Containers[0].VolumeDevices = nil, []corev1.VolumeDevice{{Name: "v"}}
		}, reason: ReasonBlock, level: Error},
		"the pod is done":          {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, reason: ReasonNotRunning, level: Warning},
		"the pod is being deleted": {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.DeletionTimestamp = ptr.To(metav1.Now()) }, reason: ReasonNotRunning, level: Warning},
		"the pod has no node":      {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.NodeName = ""; p.Status.Phase = "" }, reason: ReasonNoNode, level: Warning},
		"a Windows pod":            {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, reason: ReasonWindows, level: Warning},
		"a Windows pod by node":    {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelOSStable: "windows"} }, reason: ReasonWindows, level: Warning},
		"a Windows pod, unasked":   {volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, reason: ReasonNotSelected},
		"a mirror pod":             {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Annotations[corev1.MirrorPodAnnotationKey] = "x" }, reason: ReasonStaticPod, level: Warning},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			pod := running("web", tt.include, tt.volume)
			if tt.exclude != "" {
				pod.Annotations[contract.AnnotationBackupVolumesExcludes] = tt.exclude
			}

			if tt.change != nil {
				tt.change(pod)
			}

			settings := Settings{CoreTakesAll: tt.coreTakesAll}
			if tt.policy != "" {
				settings.Policies = parse(t, tt.policy)
			}

			v := Pod(pod, &pod.Spec.Volumes[0], settings)
			assert.Equal(t, tt.move, v.Move)
			assert.Equal(t, tt.reason, v.Reason, v.Message)
			assert.Equal(t, tt.level, v.Level, v.Message)
			assert.Equal(t, "v", v.Volume)
			assert.NotEmpty(t, v.Message)

			if tt.caution == "" {
				assert.Empty(t, v.Caution)
			} else {
				assert.Contains(t, v.Caution, tt.caution)
			}
		})
	}
}

// onNodes wants a node with one of the systems: each in a term of its own.
func onNodes(systems ...string) *corev1.Affinity {
	required := &corev1.NodeSelector{}
	for _, s := range systems {
		required.NodeSelectorTerms = append(required.NodeSelectorTerms, corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: corev1.LabelOSStable, Operator: corev1.NodeSelectorOpIn, Values: []string{s}},
		}})
	}

	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: required}}
}

func claimOf(pods ...*corev1.Pod) Claim {
	c := Claim{
		Claim: &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"},
			Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pv"},
			Status:     corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
		},
		Volume: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}},
	}
	for _, p := range pods {
		c.Pods = append(c.Pods, *p)
	}

	return c
}

func TestOfClaim(t *testing.T) {
	done := running("a", "data", claimVolume("data", "data"))
	done.Status.Phase = corev1.PodSucceeded

	elsewhere := running("a", "data", claimVolume("data", "data"))
	elsewhere.Namespace = "other"

	block := claimOf(running("a", "data", claimVolume("data", "data")))
	block.Claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)

	unbound := claimOf(running("a", "data", claimVolume("data", "data")))
	unbound.Volume = nil

	onHost := claimOf(running("a", "data", claimVolume("data", "data")))
	onHost.Volume.Spec.HostPath = &corev1.HostPathVolumeSource{Path: "/x"}

	onWindows := running("a", "data", claimVolume("data", "data"))
	onWindows.Spec.OS = &corev1.PodOS{Name: corev1.Windows}

	windowsBlock := claimOf(onWindows)
	windowsBlock.Claim.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeBlock)

	ephemeral := func(include string) Claim {
		pod := running("web", include, corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}})
		pod.UID = "p-1"
		c := claimOf(pod)
		c.Claim.Name = "web-scratch"
		c.Claim.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod", Name: "web", UID: "p-1", Controller: ptr.To(true)}}

		return c
	}

	tests := map[string]struct {
		claim  Claim
		policy bool

		move    bool
		reason  Reason
		level   Level
		carrier string
		volume  string
	}{
		"nothing asks for it":                          {claim: claimOf(running("a", "", claimVolume("data", "data"))), reason: ReasonNotSelected},
		"its pod asks":                                 {claim: claimOf(running("a", "data", claimVolume("data", "data"))), move: true, reason: ReasonAnnotation, carrier: "a", volume: "data"},
		"the policy asks":                              {claim: claimOf(running("a", "", claimVolume("data", "data"))), policy: true, move: true, reason: ReasonPolicy, carrier: "a", volume: "data"},
		"the first pod by name carries it":             {claim: claimOf(running("b", "x", claimVolume("x", "data")), running("a", "", claimVolume("y", "data"))), move: true, reason: ReasonAnnotation, carrier: "a", volume: "y"},
		"a pod that doesn't run asks, another carries": {claim: claimOf(done, running("b", "", claimVolume("x", "data"))), move: true, reason: ReasonAnnotation, carrier: "b", volume: "x"},
		"no pod runs":                                  {claim: claimOf(done), reason: ReasonNotRunning, level: Error},
		"no pod mounts it, and the policy asks":        {claim: claimOf(), policy: true, reason: ReasonNotMounted, level: Error},
		"no pod mounts it, and nothing asks":           {claim: claimOf(), reason: ReasonNotSelected},
		"a pod of another namespace doesn't count":     {claim: claimOf(elsewhere), reason: ReasonNotSelected},
		"a pod with another claim doesn't count":       {claim: claimOf(running("a", "data", claimVolume("data", "other"))), reason: ReasonNotSelected},
		"a raw block device":                           {claim: block, reason: ReasonBlock, level: Error},
		"a claim without a volume":                     {claim: unbound, reason: ReasonUnbound, level: Warning},
		"a block device of a Windows pod":              {claim: windowsBlock, policy: true, reason: ReasonWindows, level: Warning},
		"an ephemeral volume's claim, by policy":       {claim: ephemeral(""), policy: true, reason: ReasonUnsupported, level: Warning},
		"an ephemeral volume's claim, by name":         {claim: ephemeral("scratch"), reason: ReasonUnsupported, level: Error},
		"an ephemeral volume's claim, unasked":         {claim: ephemeral(""), reason: ReasonNotSelected},
		"a volume of the type hostPath":                {claim: onHost, reason: ReasonUnsupported, level: Error},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var settings Settings
			if tt.policy {
				settings.Policies = parse(t, one("    {}"))
			}

			v, carrier := OfClaim(tt.claim, settings)
			assert.Equal(t, tt.move, v.Move, v.Message)
			assert.Equal(t, tt.reason, v.Reason, v.Message)
			assert.Equal(t, tt.level, v.Level, v.Message)

			if !tt.move {
				assert.Nil(t, carrier.Pod)

				return
			}

			require.NotNil(t, carrier.Pod)
			assert.Equal(t, tt.carrier, carrier.Pod.Name)
			assert.Equal(t, tt.volume, carrier.Volume)
		})
	}
}

func TestStrays(t *testing.T) {
	pod := running("web", "data,gone, [, c*, none*", emptyDir("data"), emptyDir("cache"))
	pod.Annotations[contract.AnnotationBackupVolumesExcludes] = "lost"

	var got []string
	for _, v := range Strays(pod) {
		assert.Equal(t, Warning, v.Level)
		assert.False(t, v.Move)

		got = append(got, string(v.Reason)+" "+v.Volume)
	}

	assert.Equal(t, []string{"NoSuchVolume gone", "BadPattern [", "NoSuchVolume lost"}, got, "a glob that matches nothing is no stray")
	assert.Empty(t, Strays(running("web", "", emptyDir("data"))))
}

func TestVeleroTakesASnapshotToo(t *testing.T) {
	marked := func(backup string) Claim {
		c := claimOf(running("a", "data", claimVolume("data", "data")))
		c.Claim.Annotations = map[string]string{"velero.io/volume-snapshot-name": "s"}
		c.Claim.Labels = map[string]string{"velero.io/backup-name": backup}

		return c
	}

	moved := marked("nightly")
	moved.Claim.Annotations = map[string]string{"velero.io/data-upload-name": "velero/u"}

	onEBS := claimOf(running("a", "data", claimVolume("data", "data")))
	onEBS.Volume.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com"}

	local := claimOf(running("a", "data", claimVolume("data", "data")))
	local.Volume.Spec.Local = &corev1.LocalVolumeSource{Path: "/x"}

	tests := map[string]struct {
		claim  Claim
		native bool
		policy bool
		want   string
	}{
		"a CSI snapshot was taken":                       {claim: marked("nightly"), want: "CSI snapshot"},
		"its data is moved by Velero":                    {claim: moved, want: "CSI snapshot"},
		"the mark is an older backup's":                  {claim: marked("older")},
		"a snapshotter may act":                          {claim: onEBS, native: true, want: "volume snapshotter"},
		"snapshots are off":                              {claim: onEBS},
		"no snapshotter knows such volumes":              {claim: local, native: true},
		"a policy names Estiba, and so keeps Velero off": {claim: onEBS, native: true, policy: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			settings := Settings{Backup: "nightly", NativeSnapshots: tt.native}
			if tt.policy {
				settings.Policies = parse(t, one("    {}"))
			}

			v, _ := OfClaim(tt.claim, settings)
			assert.True(t, v.Move)

			if tt.want == "" {
				assert.Empty(t, v.Caution)
			} else {
				assert.Contains(t, v.Caution, tt.want)
			}
		})
	}
}
