package volumeselect

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

const custom = `
  action:
    type: custom
    parameters:
      mover: estiba
`

func parse(t *testing.T, text string) *Policies {
	t.Helper()

	p, err := ParsePolicies(map[string]string{"policy.yaml": text})
	require.NoError(t, err)

	return p
}

func one(conditions string) string {
	return "version: v1\nvolumePolicies:\n- conditions:\n" + conditions + custom
}

func nfsVolume() *corev1.PersistentVolume {
	return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
		Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("10Gi")},
		StorageClassName:       "slow",
		PersistentVolumeSource: corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/p"}},
	}}
}

func csiVolume() *corev1.PersistentVolume {
	return &corev1.PersistentVolume{Spec: corev1.PersistentVolumeSpec{
		Capacity:         corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("5Gi")},
		StorageClassName: "fast",
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{
			Driver: "d", VolumeAttributes: map[string]string{"a": "1"},
		}},
	}}
}

func labelled() *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"tier": "gold", "x": "y", "keep": "yes"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			VolumeMode:  ptr.To(corev1.PersistentVolumeFilesystem),
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce, corev1.ReadOnlyMany},
		},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound},
	}
}

func TestConditions(t *testing.T) {
	emptyDir := &corev1.Volume{VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	inlineNFS := &corev1.Volume{VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Server: "s", Path: "/p"}}}

	tests := map[string]struct {
		conditions string
		pv         *corev1.PersistentVolume
		claim      *corev1.PersistentVolumeClaim
		volume     *corev1.Volume
		want       bool
	}{
		"no conditions match everything":                          {conditions: "    {}", pv: nfsVolume(), want: true},
		"capacity within both bounds":                             {conditions: `    capacity: "5Gi,10Gi"`, pv: nfsVolume(), want: true},
		"capacity above the upper bound":                          {conditions: `    capacity: "1Gi,9Gi"`, pv: nfsVolume()},
		"capacity with an upper bound only":                       {conditions: `    capacity: ",10Gi"`, pv: nfsVolume(), want: true},
		"capacity with a lower bound only":                        {conditions: `    capacity: "10Gi,"`, pv: nfsVolume(), want: true},
		"capacity below the lower bound":                          {conditions: `    capacity: "11Gi,"`, pv: nfsVolume()},
		"capacity of an emptyDir is 0":                            {conditions: `    capacity: "1Gi,"`, volume: emptyDir},
		"one of the storage classes":                              {conditions: "    storageClass: [fast, slow]", pv: nfsVolume(), want: true},
		"another storage class":                                   {conditions: "    storageClass: [fast]", pv: nfsVolume()},
		"no storage class at all":                                 {conditions: `    storageClass: [""]`, volume: emptyDir},
		"any NFS":                                                 {conditions: "    nfs: {}", pv: nfsVolume(), want: true},
		"NFS where there is none":                                 {conditions: "    nfs: {}", pv: csiVolume()},
		"NFS by server":                                           {conditions: "    nfs: {server: s}", pv: nfsVolume(), want: true},
		"NFS by another server":                                   {conditions: "    nfs: {server: t, path: /p}", pv: nfsVolume()},
		"NFS by path":                                             {conditions: "    nfs: {path: /p}", volume: inlineNFS, want: true},
		"NFS by another path":                                     {conditions: "    nfs: {path: /q}", pv: nfsVolume()},
		"any CSI":                                                 {conditions: "    csi: {}", pv: csiVolume(), want: true},
		"CSI where there is none":                                 {conditions: "    csi: {}", pv: nfsVolume()},
		"CSI by driver":                                           {conditions: "    csi: {driver: d}", pv: csiVolume(), want: true},
		"CSI by another driver":                                   {conditions: "    csi: {driver: e}", pv: csiVolume()},
		"CSI by attribute":                                        {conditions: "    csi: {driver: d, volumeAttributes: {a: \"1\"}}", pv: csiVolume(), want: true},
		"CSI by another attribute":                                {conditions: "    csi: {driver: d, volumeAttributes: {a: \"2\"}}", pv: csiVolume()},
		"volume type of a PersistentVolume":                       {conditions: "    volumeTypes: [nfs, csi]", pv: nfsVolume(), want: true},
		"volume type of a pod's volume":                           {conditions: "    volumeTypes: [emptyDir]", volume: emptyDir, want: true},
		"another volume type":                                     {conditions: "    volumeTypes: [secret]", volume: emptyDir},
		"all labels":                                              {conditions: "    pvcLabels: {tier: gold}", pv: csiVolume(), claim: labelled(), want: true},
		"a label whose value looks like a boolean":                {conditions: "    pvcLabels: {keep: yes, tier: gold}", pv: csiVolume(), claim: labelled(), want: true},
		"a label with another value":                              {conditions: "    pvcLabels: {tier: gold, x: z}", pv: csiVolume(), claim: labelled()},
		"labels where there is no claim":                          {conditions: "    pvcLabels: {tier: gold}", volume: emptyDir},
		"one of the phases":                                       {conditions: "    pvcPhase: [Pending, Bound]", claim: labelled(), want: true},
		"another phase":                                           {conditions: "    pvcPhase: [Lost]", claim: labelled()},
		"phases where there is no claim":                          {conditions: "    pvcPhase: [Bound]", volume: emptyDir},
		"volume mode":                                             {conditions: "    pvcVolumeMode: Filesystem", claim: labelled(), want: true},
		"another volume mode":                                     {conditions: "    pvcVolumeMode: Block", claim: labelled()},
		"exactly the access modes, in any order":                  {conditions: "    pvcAccessModes: [ReadOnlyMany, ReadWriteOnce]", claim: labelled(), want: true},
		"some of the access modes are not enough":                 {conditions: "    pvcAccessModes: [ReadWriteOnce]", claim: labelled()},
		"all conditions must be fulfilled":                        {conditions: "    storageClass: [fast]\n    volumeTypes: [nfs]", pv: csiVolume()},
		"the PersistentVolume counts, not the pod's volume of it": {conditions: "    volumeTypes: [csi]", pv: csiVolume(), volume: emptyDir, want: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			action := parse(t, one(tt.conditions)).Match(TraitsOf(tt.pv, tt.claim, tt.volume))
			assert.Equal(t, tt.want, action != nil)
		})
	}
}

func TestTheFirstMatchWins(t *testing.T) {
	first := parse(t, "version: v1\nvolumePolicies:\n- conditions: {storageClass: [fast]}\n  action: {type: skip}\n- conditions: {}"+custom)
	global := parse(t, "version: v1\nvolumePolicies:\n- conditions: {}\n  action: {type: snapshot}")

	assert.Equal(t, "skip", first.Match(TraitsOf(csiVolume(), nil, nil)).Type)
	assert.True(t, first.Match(TraitsOf(nfsVolume(), nil, nil)).Estiba())
	assert.True(t, first.Followed(global).Match(TraitsOf(nfsVolume(), nil, nil)).Estiba(), "the backup's own rules come first")
	assert.Equal(t, "snapshot", (*Policies)(nil).Followed(global).Match(TraitsOf(nfsVolume(), nil, nil)).Type)
	assert.Nil(t, (*Policies)(nil).Match(TraitsOf(nfsVolume(), nil, nil)))
}

func TestOnlyTheParameterNamesEstiba(t *testing.T) {
	tests := map[string]struct {
		action string
		want   bool
	}{
		"custom with our name":      {action: "{type: custom, parameters: {mover: estiba}}", want: true},
		"beside other parameters":   {action: "{type: custom, parameters: {mover: ' estiba ', x: 1}}", want: true},
		"custom with another name":  {action: "{type: custom, parameters: {mover: other}}"},
		"custom without parameters": {action: "{type: custom}"},
		"a name that is no text":    {action: "{type: custom, parameters: {mover: 1}}"},
		"skip with our name":        {action: "{type: skip, parameters: {mover: estiba}}"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := parse(t, "version: v1\nvolumePolicies:\n- conditions: {}\n  action: "+tt.action)
			assert.Equal(t, tt.want, p.Match(TraitsOf(nfsVolume(), nil, nil)).Estiba())
		})
	}

	assert.False(t, (*Action)(nil).Estiba())
}

func TestParsePoliciesIsStrict(t *testing.T) {
	tests := map[string]struct {
		data map[string]string
		says string
	}{
		"no key":                    {data: map[string]string{}, says: "exactly one key"},
		"two keys":                  {data: map[string]string{"a": "", "b": ""}, says: "exactly one key"},
		"another version":           {data: map[string]string{"a": "version: v2"}, says: `version "v2"`},
		"an unknown condition":      {data: map[string]string{"a": one("    podLabels: {a: b}")}, says: "podLabels"},
		"an unknown action":         {data: map[string]string{"a": "version: v1\nvolumePolicies:\n- conditions: {}\n  action: {type: teleport}"}, says: "teleport"},
		"an unknown field":          {data: map[string]string{"a": "version: v1\nsomething: 1"}, says: "something"},
		"bounds upside down":        {data: map[string]string{"a": one(`    capacity: "2Gi,1Gi"`)}, says: "below the lower"},
		"a bound that's no size":    {data: map[string]string{"a": one(`    capacity: "big,"`)}, says: "big"},
		"a bound beyond all sizes":  {data: map[string]string{"a": one(`    capacity: "1Gi,1e99999999"`)}, says: "beyond any size"},
		"one bound without comma":   {data: map[string]string{"a": one(`    capacity: "1Gi"`)}, says: "LOW,HIGH"},
		"attributes, and no driver": {data: map[string]string{"a": one("    csi: {volumeAttributes: {a: b}}")}, says: "driver"},
		"labels that are no map":    {data: map[string]string{"a": one("    pvcLabels: [a]")}, says: "line 4"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParsePolicies(tt.data)
			require.ErrorContains(t, err, tt.says)
		})
	}
}

func TestWhatSelectsResourcesIsLeftToVelero(t *testing.T) {
	p := parse(t, `
version: v1
includeExcludePolicy: {excludedNamespaceScopedResources: [secrets]}
clusterScopedFilterPolicy: {resourceFilters: [{kinds: [Node]}]}
namespacedFilterPolicies: [{namespaces: [a], resourceFilters: [{kinds: ["*"]}]}]
volumePolicies:
- conditions: {}
`+custom[1:])
	assert.True(t, p.Match(TraitsOf(nfsVolume(), nil, nil)).Estiba())
}

func FuzzParsePolicies(f *testing.F) {
	f.Add(one("    {}"))
	f.Add(one(`    capacity: "1Gi,2Gi"`))
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicies(map[string]string{"a": text})
		if err == nil {
			p.Match(TraitsOf(csiVolume(), labelled(), nil))
		}
	})
}
