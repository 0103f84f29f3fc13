package jobs_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
)

func claimVolume(pod string) v1alpha1.VolumeReference {
	return v1alpha1.VolumeReference{
		Kind: v1alpha1.VolumePersistentVolumeClaim, Namespace: "shop", Name: "data",
		Pod:   v1alpha1.PodReference{Name: pod, UID: "p-1"},
		Claim: &v1alpha1.ClaimReference{Name: "data", UID: "c-1"},
	}
}

func emptyDirVolume(pod, volume string) v1alpha1.VolumeReference {
	return v1alpha1.VolumeReference{
		Kind: v1alpha1.VolumeEmptyDir, Namespace: "shop", Name: volume,
		Pod: v1alpha1.PodReference{Name: pod, UID: "p-1"},
	}
}

// The names are part of what a plugin of one release and a daemon of another
// must agree on: these values must never change.
func TestNamesNeverChange(t *testing.T) {
	assert.Equal(t, "vb-f094fe829a75682e699397efedd340a639229a5a", jobs.BackupJobName("b-1", claimVolume("web-0")))
	assert.Equal(t, "vb-fff14433971113bd5890b6a7855d77c27fddb11a", jobs.BackupJobName("b-1", emptyDirVolume("web-0", "cache")))
	assert.Equal(t, "vr-b223982760d1e9b363d54d4d28adb6fd5e72ce29", jobs.RestoreJobName("r-1", claimVolume("web-0")))
	assert.Equal(t, "vr-17c2eaa3e6d06c85f9fdc8acd85258a036ce6152", jobs.RestoreJobName("r-1", emptyDirVolume("web-0", "cache")))
	assert.Equal(t, "sd-f1ad3c496f37c3fb21a1510d5b2be9c234977c71", jobs.DeletionJobName(v1alpha1.SnapshotReference{
		Job: "vb-1", Backup: v1alpha1.OwnerReference{Name: "nightly", UID: "b-1"},
	}))
	assert.Equal(t, "shop-aaed7988b4c7c835", jobs.RepositoryName("default", "shop"))
}

func TestBackupJobName(t *testing.T) {
	base := claimVolume("web-0")

	same := map[string]func(v *v1alpha1.VolumeReference){
		"another pod that mounts the claim":        func(v *v1alpha1.VolumeReference) { v.Pod.Name = "web-1"; v.Pod.UID = "p-2" },
		"another name of the volume in its pod":    func(v *v1alpha1.VolumeReference) { v.Name = "storage" },
		"the PersistentVolume isn't part of it":    func(v *v1alpha1.VolumeReference) { v.Claim.PersistentVolume = "pv-9" },
		"the volume's UID isn't part of it either": func(v *v1alpha1.VolumeReference) { v.Claim.PersistentVolumeUID = "u" },
	}
	for name, change := range same {
		t.Run(name, func(t *testing.T) {
			other := base.DeepCopy()
			change(other)
			assert.Equal(t, jobs.BackupJobName("b-1", base), jobs.BackupJobName("b-1", *other))
		})
	}

	differ := map[string]func(v *v1alpha1.VolumeReference){
		"another namespace":          func(v *v1alpha1.VolumeReference) { v.Namespace = "other" },
		"another claim":              func(v *v1alpha1.VolumeReference) { v.Claim.Name = "logs" },
		"a claim that was recreated": func(v *v1alpha1.VolumeReference) { v.Claim.UID = "c-2" },
		"a volume without a claim":   func(v *v1alpha1.VolumeReference) { v.Claim = nil },
	}
	for name, change := range differ {
		t.Run(name, func(t *testing.T) {
			other := base.DeepCopy()
			change(other)
			assert.NotEqual(t, jobs.BackupJobName("b-1", base), jobs.BackupJobName("b-1", *other))
		})
	}

	assert.NotEqual(t, jobs.BackupJobName("b-1", base), jobs.BackupJobName("b-2", base), "another backup")
	assert.NotEqual(t, jobs.BackupJobName("b-1", emptyDirVolume("web-0", "a")), jobs.BackupJobName("b-1", emptyDirVolume("web-0", "b")))
	assert.Regexp(t, `^vb-[0-9a-f]{40}$`, jobs.BackupJobName("b-1", base))
}

func TestRestoreJobNameDoesNotNeedUIDs(t *testing.T) {
	a, b := claimVolume("web-0"), claimVolume("web-1")
	b.Claim.UID, b.Pod.UID = "", ""

	assert.Equal(t, jobs.RestoreJobName("r-1", a), jobs.RestoreJobName("r-1", b))
	assert.NotEqual(t, jobs.RestoreJobName("r-1", a), jobs.RestoreJobName("r-2", a))
	assert.Regexp(t, `^vr-[0-9a-f]{40}$`, jobs.RestoreJobName("r-1", a))
}

func TestRepositoryName(t *testing.T) {
	name := jobs.RepositoryName("default", "shop")

	assert.True(t, strings.HasPrefix(name, "shop-"))
	assert.NotEqual(t, name, jobs.RepositoryName("other", "shop"))
	assert.NotEqual(t, jobs.RepositoryName("b", "a"), jobs.RepositoryName("", "b-a"))

	longest := jobs.RepositoryName(strings.Repeat("l", 253), strings.Repeat("n", 63))
	require.Empty(t, validation.IsDNS1123Subdomain(longest))
}

func TestLabelValue(t *testing.T) {
	tests := map[string]struct {
		in, want string
	}{
		"a short name is itself":             {in: "nightly", want: "nightly"},
		"63 characters fit":                  {in: strings.Repeat("a", 63), want: strings.Repeat("a", 63)},
		"a longer name ends in its own hash": {in: strings.Repeat("a", 64), want: strings.Repeat("a", 57) + "ffe054"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := jobs.LabelValue(tt.in)
			assert.Equal(t, tt.want, got)
			assert.Empty(t, validation.IsValidLabelValue(got))
		})
	}
}
