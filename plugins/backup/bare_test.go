package backup

import (
	"context"
	"errors"
	"testing"

	"github.com/sirupsen/logrus"
	"github.com/stretchr/testify/assert"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/estiba-dev/estiba/mover/contract"
)

// A volume that is kept when its claim goes would be made anew by a restore, and the claim bound to it.
func TestAVolumeThatLacksTheRecordThatItsClaimHasIsSaidAloud(t *testing.T) {
	tests := map[string]struct {
		policy corev1.PersistentVolumeReclaimPolicy
		met    bool
		says   bool
	}{
		"a kept one, when the API server didn't answer for a moment": {policy: corev1.PersistentVolumeReclaimRetain, met: true, says: true},
		"one that goes with its claim":                               {policy: corev1.PersistentVolumeReclaimDelete, met: true},
		"one that isn't in the backup":                               {policy: corev1.PersistentVolumeReclaimRetain},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			claim, pv := boundClaim("data")
			pv.Spec.PersistentVolumeReclaimPolicy = tt.policy
			b := newBench(t, claim, pv, podWith("web", selecting("data"), ofClaim("data", "data")))

			if tt.met {
				working := b.client
				b.client = interceptor.NewClient(working.(client.WithWatch), interceptor.Funcs{
					Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
						if _, ok := o.(*corev1.PersistentVolumeClaim); ok {
							return errors.New("busy")
						}

						return c.Get(ctx, key, o, opts...)
					},
				})

				volume, _ := b.run(pv)
				assert.NotContains(t, volume, contract.AnnotationVolume)

				b.client = working
			}

			record, _ := b.run(claim)
			assert.Contains(t, record, contract.AnnotationVolume)

			said := b.said(logrus.ErrorLevel)
			assert.Equal(t, tt.says, len(said) > 0, said)

			if tt.says {
				assert.Contains(t, said[0], "without a record")
				assert.Contains(t, said[0], "busy")
			}
		})
	}
}
