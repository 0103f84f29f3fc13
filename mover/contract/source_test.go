package contract_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/estiba-dev/estiba/mover/contract"
)

func TestAClaimsChainFollowsItsNameAndItsInstanceTheObjects(t *testing.T) {
	first := contract.ClaimSource("data", "claim-1", "volume-1")
	again := contract.ClaimSource("data", "claim-2", "volume-2")
	rebound := contract.ClaimSource("data", "claim-1", "volume-2")
	other := contract.ClaimSource("logs", "claim-1", "volume-1")

	assert.Equal(t, contract.Source{Path: "/persistentvolumeclaim/data", Instance: "pvc/claim-1/volume-1"}, first)
	assert.Equal(t, first.Path, again.Path)
	assert.NotEqual(t, first.Instance, again.Instance)
	assert.NotEqual(t, first.Instance, rebound.Instance)
	assert.NotEqual(t, first.Path, other.Path)
}

func TestAnEphemeralVolumesChainFollowsItsWorkload(t *testing.T) {
	for name, test := range map[string]struct {
		workload contract.Workload
		path     string
	}{
		"a pod alone follows its name": {
			contract.Workload{Pod: "web"}, "/pod/web/cache",
		},
		"a Deployment's pod follows the Deployment": {
			contract.Workload{Kind: "ReplicaSet", Name: "web-6d5f", Pod: "web-6d5f-x2x", PodTemplateHash: "6d5f"}, "/deployment/web/cache",
		},
		"a ReplicaSet of nobody follows itself": {
			contract.Workload{Kind: "ReplicaSet", Name: "web", Pod: "web-x2x"}, "/replicaset/web/cache",
		},
		"a ReplicaSet whose name does not end in its hash follows itself": {
			contract.Workload{Kind: "ReplicaSet", Name: "web-1", Pod: "web-1-x2x", PodTemplateHash: "6d5f"}, "/replicaset/web-1/cache",
		},
		"a StatefulSet's pod follows its ordinal too": {
			contract.Workload{Kind: "StatefulSet", Name: "db", Pod: "db-12"}, "/statefulset/db/12/cache",
		},
		"a StatefulSet's pod without an ordinal follows the StatefulSet": {
			contract.Workload{Kind: "StatefulSet", Name: "db", Pod: "db"}, "/statefulset/db/cache",
		},
		"a DaemonSet's pod follows the DaemonSet": {
			contract.Workload{Kind: "DaemonSet", Name: "agent", Pod: "agent-x2x"}, "/daemonset/agent/cache",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := contract.EphemeralSource(test.workload, "uid-1", "cache")
			assert.Equal(t, contract.Source{Path: test.path, Instance: "pod/uid-1/cache"}, s)
			assert.NotEqual(t, s.Instance, contract.EphemeralSource(test.workload, "uid-2", "cache").Instance)
		})
	}
}
