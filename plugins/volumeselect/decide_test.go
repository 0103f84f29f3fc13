package volumeselect

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/settings"
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
	hostPath := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv/data"}}}
	secret := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}}
	inline := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ISCSI: &corev1.ISCSIVolumeSource{}}}
	nfs := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}}
	csi := func(driver string) corev1.Volume {
		return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: driver}}}
	}
	optOut := settings.Settings{DefaultVolumes: settings.OptOut}
	loudly := settings.Settings{DefaultVolumes: settings.OptOut, Unprotected: settings.UnprotectedFail}

	tests := map[string]struct {
		include, exclude string
		policy           string
		volume           corev1.Volume
		change           func(p *corev1.Pod)
		coreTakesAll     bool
		own              settings.Settings

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

		"a hostPath by name":                       {include: "v", volume: hostPath, reason: ReasonHostPath, level: Warning},
		"a hostPath by policy":                     {policy: one("    {}"), volume: hostPath, reason: ReasonHostPath},
		"a hostPath, unasked":                      {volume: hostPath, reason: ReasonHostPath},
		"a hostPath that is allowed":               {include: "v", own: settings.Settings{HostPathPrefixes: []string{"/srv"}}, volume: hostPath, move: true, reason: ReasonAnnotation},
		"a hostPath beside what is allowed":        {include: "v", own: settings.Settings{HostPathPrefixes: []string{"/srv/dat"}}, volume: hostPath, reason: ReasonHostPath, level: Warning},
		"a secret by name":                         {include: "v", volume: secret, reason: ReasonNoData},
		"inline NFS by name":                       {include: "v", volume: nfs, move: true, reason: ReasonAnnotation},
		"inline NFS, unasked":                      {volume: nfs, reason: ReasonNotSelected, level: Warning},
		"an inline CSI volume":                     {include: "v", volume: csi("hostpath.csi.k8s.io"), move: true, reason: ReasonAnnotation},
		"a CSI volume of credentials by name":      {include: "v", volume: csi("secrets-store.csi.k8s.io"), reason: ReasonCredentials, level: Warning},
		"a CSI volume of credentials by glob":      {include: "*", own: settings.Settings{SecretCSIDrivers: []string{"x.example"}}, volume: csi("x.example"), reason: ReasonCredentials, level: Warning},
		"a CSI volume of credentials by default":   {own: optOut, volume: csi("csi.spiffe.io"), reason: ReasonCredentials},
		"inline iSCSI by name":                     {include: "v", volume: inline, reason: ReasonUnsupported, level: Error},
		"inline iSCSI by glob":                     {include: "*", volume: inline, reason: ReasonUnsupported, level: Warning},
		"a hopeless kind in a Windows pod":         {include: "v", volume: inline, change: func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, reason: ReasonWindows, level: Warning},
		"a secret in a Windows pod":                {include: "v", volume: secret, change: func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, reason: ReasonNoData},
		"a Windows pod by affinity":                {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.Affinity = onNodes("windows") }, reason: ReasonWindows, level: Warning},
		"a pod that may be on either by affinity":  {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.Affinity = onNodes("windows", "linux") }, move: true, reason: ReasonAnnotation},
		"a secret by policy":                       {policy: one("    {}"), volume: secret, reason: ReasonNoData},
		"everything is moved":                      {own: optOut, volume: emptyDir("v"), move: true, reason: ReasonDefault},
		"everything is moved and nobody mounts it": {own: loudly, volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = nil }, reason: ReasonNotMounted},
		"everything is moved but the pod is done":  {own: loudly, volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, reason: ReasonNotRunning},
		"everything has to be moved and can't be":  {own: loudly, volume: inline, reason: ReasonUnsupported, level: Error},
		"everything has to be moved, on Windows":   {own: loudly, volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.OS = &corev1.PodOS{Name: corev1.Windows} }, reason: ReasonWindows, level: Warning},
		"nobody mounts it":                         {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = nil }, reason: ReasonNotMounted, level: Warning},
		"an init container mounts":                 {include: "v", volume: emptyDir("v"), change: func(p *corev1.Pod) { p.Spec.InitContainers, p.Spec.Containers = p.Spec.Containers, nil }, move: true, reason: ReasonAnnotation},
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

			s := Settings{CoreTakesAll: tt.coreTakesAll, Own: tt.own}
			if tt.policy != "" {
				s.Policies = parse(t, tt.policy)
			}

			v := Pod(pod, &pod.Spec.Volumes[0], s)
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

	stranger := ephemeral("scratch")
	stranger.Claim.OwnerReferences = nil

	lost := claimOf(running("a", "data", claimVolume("data", "data")))
	lost.Volume, lost.Claim.Status.Phase = nil, corev1.ClaimLost

	optOut := settings.Settings{DefaultVolumes: settings.OptOut}
	fail := settings.Settings{DefaultVolumes: settings.OptIn, Unprotected: settings.UnprotectedFail}
	quiet := running("a", "", claimVolume("data", "data"))
	quiet.Status.Phase = corev1.PodPending

	without := func(name string) *corev1.Pod {
		p := running(name, "", claimVolume("data", "data"))
		p.Annotations[contract.AnnotationBackupVolumesExcludes] = "d*"

		return p
	}

	wishing := func(value string, pods ...*corev1.Pod) Claim {
		c := claimOf(pods...)
		c.Claim.Annotations = map[string]string{contract.AnnotationBackup: value}

		return c
	}

	tests := map[string]struct {
		claim  Claim
		policy bool
		own    settings.Settings

		move    bool
		reason  Reason
		level   Level
		carrier string
		volume  string
	}{
		"nothing asks for it":                           {claim: claimOf(running("a", "", claimVolume("data", "data"))), reason: ReasonNotSelected, level: Warning},
		"nothing asks for it, and it has to":            {claim: claimOf(running("a", "", claimVolume("data", "data"))), own: fail, reason: ReasonNotSelected, level: Error},
		"nothing asks for it, and everything is moved":  {claim: claimOf(running("a", "", claimVolume("data", "data"))), own: optOut, move: true, reason: ReasonDefault, carrier: "a", volume: "data"},
		"its own annotation asks":                       {claim: wishing(" True ", running("a", "", claimVolume("data", "data"))), move: true, reason: ReasonClaimAnnotation, carrier: "a", volume: "data"},
		"its own annotation asks and the pod excludes":  {claim: wishing("true", without("a")), move: true, reason: ReasonClaimAnnotation, carrier: "a", volume: "data"},
		"its own annotation excludes it":                {claim: wishing("false", running("a", "data", claimVolume("data", "data"))), own: optOut, reason: ReasonExcluded},
		"its own annotation can't be read":              {claim: wishing("yes", running("a", "", claimVolume("data", "data"))), own: optOut, move: true, reason: ReasonDefault, carrier: "a", volume: "data"},
		"one of its pods excludes it":                   {claim: claimOf(without("a"), running("b", "", claimVolume("x", "data"))), own: optOut, reason: ReasonExcluded},
		"one of its pods excludes it, another asks":     {claim: claimOf(without("a"), running("b", "x", claimVolume("x", "data"))), move: true, reason: ReasonAnnotation, carrier: "a", volume: "data"},
		"everything is moved but no pod runs":           {claim: claimOf(quiet), own: optOut, move: true, reason: ReasonDefault},
		"everything has to be moved but no pod runs":    {claim: claimOf(quiet), own: settings.Settings{DefaultVolumes: settings.OptOut, Unprotected: settings.UnprotectedFail}, move: true, reason: ReasonDefault},
		"its own annotation asks, and no pod mounts it": {claim: wishing("true"), move: true, reason: ReasonClaimAnnotation},
		"it has lost its volume":                        {claim: lost, reason: ReasonLost, level: Error},
		"its pod asks":                                  {claim: claimOf(running("a", "data", claimVolume("data", "data"))), move: true, reason: ReasonAnnotation, carrier: "a", volume: "data"},
		"the policy asks":                               {claim: claimOf(running("a", "", claimVolume("data", "data"))), policy: true, move: true, reason: ReasonPolicy, carrier: "a", volume: "data"},
		"the first pod by name carries it":              {claim: claimOf(running("b", "x", claimVolume("x", "data")), running("a", "", claimVolume("y", "data"))), move: true, reason: ReasonAnnotation, carrier: "a", volume: "y"},
		"a pod that doesn't run asks, another carries":  {claim: claimOf(done, running("b", "", claimVolume("x", "data"))), move: true, reason: ReasonAnnotation, carrier: "b", volume: "x"},
		"no pod runs":                                   {claim: claimOf(done), move: true, reason: ReasonAnnotation},
		"no pod mounts it, and the policy asks":         {claim: claimOf(), policy: true, move: true, reason: ReasonPolicy},
		"no pod mounts it, and nothing asks":            {claim: claimOf(), reason: ReasonNotSelected, level: Warning},
		"a pod of another namespace doesn't count":      {claim: claimOf(elsewhere), reason: ReasonNotSelected, level: Warning},
		"a pod with another claim doesn't count":        {claim: claimOf(running("a", "data", claimVolume("data", "other"))), reason: ReasonNotSelected, level: Warning},
		"a raw block device":                            {claim: block, reason: ReasonBlock, level: Error},
		"a claim without a volume":                      {claim: unbound, reason: ReasonUnbound, level: Warning},
		"a block device of a Windows pod":               {claim: windowsBlock, policy: true, reason: ReasonWindows, level: Warning},
		"an ephemeral volume's claim, by policy":        {claim: ephemeral(""), policy: true, move: true, reason: ReasonPolicy, carrier: "web", volume: "scratch"},
		"an ephemeral volume's claim, by name":          {claim: ephemeral("scratch"), move: true, reason: ReasonAnnotation, carrier: "web", volume: "scratch"},
		"a claim that a pod's volume can't have":        {claim: stranger, reason: ReasonNotSelected, level: Warning},
		"an ephemeral volume's claim, unasked":          {claim: ephemeral(""), reason: ReasonNotSelected},
		"a volume of the type hostPath":                 {claim: onHost, reason: ReasonHostPath, level: Error},
		"a volume of the type hostPath that is allowed": {claim: onHost, own: settings.Settings{HostPathPrefixes: []string{"/x"}}, move: true, reason: ReasonAnnotation, carrier: "a", volume: "data"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := Settings{Own: tt.own}
			if tt.policy {
				s.Policies = parse(t, one("    {}"))
			}

			v, carrier := OfClaim(tt.claim, s)
			assert.Equal(t, tt.move, v.Move, v.Message)
			assert.Equal(t, tt.reason, v.Reason, v.Message)
			assert.Equal(t, tt.level, v.Level, v.Message)

			if !tt.move {
				assert.Nil(t, carrier.Pod)

				return
			}

			if tt.carrier == "" {
				assert.Nil(t, carrier.Pod)
				assert.Contains(t, v.Message, "moved through a staging pod")

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

func TestWhatVeleroTakesIsLeftToItUnlessItIsNamed(t *testing.T) {
	data := func(change func(p *corev1.Pod)) Claim {
		p := running("a", "", claimVolume("data", "data"))
		if change != nil {
			change(p)
		}

		return claimOf(p)
	}
	core := func(key, value string) func(p *corev1.Pod) {
		return func(p *corev1.Pod) { p.Annotations["backup.velero.io/"+key] = value }
	}
	onEBS := data(nil)
	onEBS.Volume.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: "ebs.csi.aws.com"}

	snapshotted := data(nil)
	snapshotted.Snapshotted = true

	policy := func(action string) string {
		return "version: v1\nvolumePolicies:\n- conditions: {}\n  action: {type: " + action + "}"
	}

	tests := map[string]struct {
		claim  Claim
		s      Settings
		policy string

		reason  Reason // under opt-out
		caution string // where an annotation names the volume
	}{
		"its annotation names it":            {claim: data(core("backup-volumes", "data")), reason: ReasonLeftToFSB, caution: "moved twice"},
		"its annotation, with a space":       {claim: data(core("backup-volumes", " data")), reason: ReasonDefault},
		"it takes everything":                {claim: data(nil), s: Settings{CoreTakesAll: true}, reason: ReasonLeftToFSB, caution: "moved twice"},
		"it takes everything but this":       {claim: data(core("backup-volumes-excludes", "data")), s: Settings{CoreTakesAll: true}, reason: ReasonExcluded},
		"it is excluded, with a space":       {claim: data(core("backup-volumes-excludes", "x, data")), reason: ReasonExcluded},
		"it takes everything but of claims":  {claim: data(nil), s: Settings{CoreTakesAll: true, CoreLeavesClaims: true}, reason: ReasonDefault},
		"its agent isn't on the node":        {claim: data(nil), s: Settings{CoreTakesAll: true, CoreNodes: map[string]bool{"other": true}}, reason: ReasonDefault},
		"its agent is on the node":           {claim: data(nil), s: Settings{CoreTakesAll: true, CoreNodes: map[string]bool{"n": true}}, reason: ReasonLeftToFSB, caution: "moved twice"},
		"only an init container mounts it":   {claim: data(func(p *corev1.Pod) { p.Spec.InitContainers, p.Spec.Containers = p.Spec.Containers, nil }), s: Settings{CoreTakesAll: true}, reason: ReasonDefault},
		"the policy says fs-backup":          {claim: data(nil), policy: policy("fs-backup"), reason: ReasonLeftToFSB, caution: "moved twice"},
		"the policy says snapshot":           {claim: data(nil), s: Settings{Snapshotters: []string{"x/y"}}, policy: policy("snapshot"), reason: ReasonLeftToSnapshot, caution: "snapshot of it, too"},
		"the policy says skip":               {claim: data(nil), policy: policy("skip"), reason: ReasonExcluded, caution: "says skip"},
		"the policy names another plugin":    {claim: data(nil), policy: policy("custom"), reason: ReasonLeftToOther, caution: "says custom"},
		"a CSI snapshot was taken":           {claim: snapshotted, reason: ReasonLeftToSnapshot, caution: "in the backup twice"},
		"a snapshotter takes it":             {claim: onEBS, s: Settings{Snapshotters: []string{"velero.io/aws"}}, reason: ReasonLeftToSnapshot, caution: "in the backup twice"},
		"a snapshotter for others":           {claim: onEBS, s: Settings{Snapshotters: []string{"velero.io/gcp"}}, reason: ReasonDefault},
		"a snapshotter, but for other kinds": {claim: data(nil), s: Settings{Snapshotters: []string{"velero.io/aws"}}, reason: ReasonDefault},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := tt.s
			s.Own.DefaultVolumes = settings.OptOut

			if tt.policy != "" {
				s.Policies = parse(t, tt.policy)
			}

			v, _ := OfClaim(tt.claim, s)
			assert.Equal(t, tt.reason, v.Reason, v.Message)
			assert.Equal(t, tt.reason == ReasonDefault, v.Move)
			assert.Equal(t, Info, v.Level)
			assert.Empty(t, v.Caution)

			named := tt.claim
			named.Pods = []corev1.Pod{*tt.claim.Pods[0].DeepCopy()}
			named.Pods[0].Annotations[contract.AnnotationBackupVolumes] = "data"

			v, _ = OfClaim(named, s)
			assert.True(t, v.Move)
			assert.Equal(t, ReasonAnnotation, v.Reason)
			assert.Contains(t, v.Caution, tt.caution)
			assert.Equal(t, tt.caution == "", v.Caution == "", v.Caution)
		})
	}
}

func TestCSISnapshotted(t *testing.T) {
	claim := func(backup, mark string) *corev1.PersistentVolumeClaim {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
			Labels: map[string]string{"velero.io/backup-name": backup}, Annotations: map[string]string{mark: "x"},
		}}
	}

	assert.True(t, CSISnapshotted(claim("b", "velero.io/volume-snapshot-name"), "b"))
	assert.True(t, CSISnapshotted(claim("b", "velero.io/data-upload-name"), "b"))
	assert.False(t, CSISnapshotted(claim("older", "velero.io/volume-snapshot-name"), "b"), "the mark is an older backup's")
	assert.False(t, CSISnapshotted(claim("b", "x"), "b"))
}

func TestAClaimsAnnotationThatCannotBeReadIsAnError(t *testing.T) {
	claim := claimOf().Claim
	assert.Empty(t, ClaimStrays(claim))

	claim.Annotations = map[string]string{contract.AnnotationBackup: "on"}
	require.Len(t, ClaimStrays(claim), 1)
	assert.Equal(t, Error, ClaimStrays(claim)[0].Level)
	assert.Contains(t, ClaimStrays(claim)[0].Message, `"on"`)
}
