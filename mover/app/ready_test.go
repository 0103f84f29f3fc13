package app

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/config"
)

// filling is a cache that has seen all pods, and jobs once full.
type filling struct{ full *bool }

type informer struct {
	cache.Informer
	synced bool
}

func (i informer) HasSynced() bool { return i.synced }

func (f filling) GetInformer(_ context.Context, o client.Object, _ ...cache.InformerGetOption) (cache.Informer, error) {
	_, pod := o.(*corev1.Pod)

	return informer{synced: pod || *f.full}, nil
}

func TestAProcessIsReadyWhenItsCachesAreFull(t *testing.T) {
	t.Parallel()

	full := false
	probe := synced(filling{&full}, watched(config.RoleNode)...)
	request := httptest.NewRequest("GET", "/readyz", nil)

	require.ErrorIs(t, probe(request), errNotSynced)

	full = true

	require.NoError(t, probe(request))
	assert.IsType(t, &v1alpha1.VolumeBackup{}, watched(config.RoleController)[0])
	assert.Len(t, watched(config.RoleController), 8)
}
