package contract_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/estiba-dev/estiba/mover/contract"
)

var update = flag.Bool("update", false, "write the golden files anew; do so only for a shape that no release has written yet")

// golden compares with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()

	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got+"\n"), 0o600))
	}

	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, strings.TrimSpace(string(want)), strings.TrimSpace(got))
}

const id = "abcdefghijklmnopqrstuvwx27"

func volume() contract.Volume {
	return contract.Volume{
		Job:    "vb-0123456789abcdef0123456789abcdef01234567",
		Kind:   "PersistentVolumeClaim",
		Claim:  "data",
		Source: "/persistentvolumeclaim/data",
		Repository: contract.Repository{
			Namespace: "shop", ID: id, Path: "plugins/estiba/repositories/shop/" + id + "/",
		},
	}
}

func original() *contract.PersistentVolume {
	return &contract.PersistentVolume{ReclaimPolicy: "Retain", Labels: map[string]string{"tier": "gold"}}
}

func TestRecordsHaveTheirShape(t *testing.T) {
	owner := contract.Owner{Name: "nightly-<1>", UID: "6c4d8f6a-0000-4000-8000-000000000001"}

	pod, err := contract.PodRecord{Backup: owner, Volumes: map[string]contract.Volume{"data": volume()}}.Encode()
	require.NoError(t, err)
	golden(t, "pod-record.v1.json", pod)

	unprotected, err := contract.PodRecord{
		Backup: owner, Volumes: map[string]contract.Volume{}, Unprotected: map[string]string{"data": "PodNotRunning: pod web is Pending"},
	}.Encode()
	require.NoError(t, err)
	golden(t, "pod-record-unprotected.v1.json", unprotected)

	claim, err := contract.ClaimRecord{Backup: owner, Volume: volume()}.Encode()
	require.NoError(t, err)
	golden(t, "claim-record.v1.json", claim)

	whole, err := contract.ClaimRecord{Backup: owner, Volume: volume(), PersistentVolume: original()}.Encode()
	require.NoError(t, err)
	golden(t, "claim-record-volume.v1.json", whole)

	lost, err := contract.UnprotectedRecord{Backup: owner, Reason: "RestoreNotDone: VolumeRestore vr-1 is InProgress"}.Encode()
	require.NoError(t, err)
	golden(t, "unprotected-record.v1.json", lost)

	gate, err := contract.GateRecord{Restore: owner, Jobs: map[string]string{"data": "vr-1"}}.Encode()
	require.NoError(t, err)
	golden(t, "gate-record.v1.json", gate)

	gate, err = contract.GateRecord{Restore: owner, Jobs: map[string]string{"data": "vr-1"}, VeleroNamespace: "velero"}.Encode()
	require.NoError(t, err)
	golden(t, "gate-record-install.v1.json", gate)

	outcome, err := contract.GateOutcome{State: contract.GateFailed, Message: "no snapshot"}.Encode()
	require.NoError(t, err)
	golden(t, "gate-outcome.v1.json", string(outcome))
}

func TestRecordsOfTheGoldenFilesAreRead(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		require.NoError(t, err)

		return string(b)
	}

	pod, err := contract.DecodePodRecord(read("pod-record.v1.json"))
	require.NoError(t, err)
	assert.Equal(t, volume(), pod.Volumes["data"])
	assert.Equal(t, "nightly-<1>", pod.Backup.Name)

	assert.Empty(t, pod.Unprotected)

	pod, err = contract.DecodePodRecord(read("pod-record-unprotected.v1.json"))
	require.NoError(t, err)
	assert.Empty(t, pod.Volumes)
	assert.Equal(t, map[string]string{"data": "PodNotRunning: pod web is Pending"}, pod.Unprotected)

	claim, err := contract.DecodeClaimRecord(read("claim-record.v1.json"))
	require.NoError(t, err)
	assert.Equal(t, volume(), claim.Volume)
	assert.Nil(t, claim.PersistentVolume)

	claim, err = contract.DecodeClaimRecord(read("claim-record-volume.v1.json"))
	require.NoError(t, err)
	assert.Equal(t, original(), claim.PersistentVolume)

	lost, err := contract.DecodeUnprotectedRecord(read("unprotected-record.v1.json"))
	require.NoError(t, err)
	assert.Equal(t, "RestoreNotDone: VolumeRestore vr-1 is InProgress", lost.Reason)

	_, err = contract.DecodeUnprotectedRecord(`{"version":2}`)
	require.ErrorIs(t, err, contract.ErrRecord)

	gate, err := contract.DecodeGateRecord(read("gate-record.v1.json"))
	require.NoError(t, err)
	assert.Equal(t, "vr-1", gate.Jobs["data"])
	assert.True(t, gate.Of("velero") && gate.Of("velero-2"), "a release that knew of no other install wrote it")

	gate, err = contract.DecodeGateRecord(read("gate-record-install.v1.json"))
	require.NoError(t, err)
	assert.Equal(t, "vr-1", gate.Jobs["data"])
	assert.True(t, gate.Of("velero"))
	assert.False(t, gate.Of("velero-2"))

	outcome, err := contract.DecodeGateOutcome([]byte(read("gate-outcome.v1.json")))
	require.NoError(t, err)
	assert.Equal(t, contract.GateFailed, outcome.State)
}

func TestRecordsThatCannotBeTrustedAreRefused(t *testing.T) {
	good, err := contract.ClaimRecord{Volume: volume()}.Encode()
	require.NoError(t, err)

	for name, test := range map[string]struct{ from, to string }{
		"no JSON":                                 {`{`, ``},
		"a version that is not known":             {`"version":1`, `"version":2`},
		"no version":                              {`"version":1,`, ``},
		"no job":                                  {volume().Job, ``},
		"a path that is not its repository's":     {`"path":"plugins`, `"path":"../plugins`},
		"an ID that climbs":                       {`"id":"` + id, `"id":"../` + id},
		"a namespace that climbs":                 {`"namespace":"shop"`, `"namespace":".."`},
		"a namespace that is not the path's":      {`"namespace":"shop"`, `"namespace":"bank"`},
		"a path with something after it":          {id + `/"`, id + `/x"`},
		"a repository's path without its slash":   {id + `/"`, id + `"`},
		"a namespace with upper case":             {`"namespace":"shop"`, `"namespace":"Shop"`},
		"an ID with a character that has no bits": {`"id":"abc`, `"id":"ab1`},
	} {
		t.Run(name, func(t *testing.T) {
			spoiled := strings.Replace(good, test.from, test.to, 1)
			require.NotEqual(t, good, spoiled)

			_, err := contract.DecodeClaimRecord(spoiled)
			require.ErrorIs(t, err, contract.ErrRecord)
		})
	}
}

func TestUnknownFieldsAreLetThrough(t *testing.T) {
	s, err := contract.ClaimRecord{Volume: volume()}.Encode()
	require.NoError(t, err)

	r, err := contract.DecodeClaimRecord(strings.Replace(s, `{"version":1`, `{"later":{"x":1},"version":1`, 1))
	require.NoError(t, err)
	assert.Equal(t, volume(), r.Volume)
}

func TestAGateOutcomeNeedsAState(t *testing.T) {
	_, err := contract.DecodeGateOutcome([]byte(`{"version":1,"state":"ajar"}`))
	require.ErrorIs(t, err, contract.ErrRecord)
}

func FuzzDecodedRecordsAreSafe(f *testing.F) {
	s, err := contract.ClaimRecord{Volume: volume()}.Encode()
	require.NoError(f, err)
	f.Add(s)
	f.Fuzz(func(t *testing.T, s string) {
		r, err := contract.DecodeClaimRecord(s)
		if err != nil {
			require.ErrorIs(t, err, contract.ErrRecord)

			return
		}

		require.True(t, strings.HasPrefix(r.Volume.Repository.Path, contract.Root))
		require.NotContains(t, r.Volume.Repository.Path, "..")
	})
}
