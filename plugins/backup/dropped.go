package backup

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// warnIfDropped says that Velero is going to leave the pod out of the backup. It decides that before any action is
// asked, and says it in words that name no remedy. What is moved of the pod's own volumes can't be restored then; the
// jobs, which Velero writes into the backup by themselves, let a deletion of the backup find their snapshots.
func (v *visit) warnIfDropped(ctx context.Context) {
	if finalizing(v.backup) {
		return
	}

	t, err := v.session.toldOf(ctx, v.backup)
	if err != nil {
		return // said of each volume
	}

	names, err := t.settings.Dropped(v.pod, func(volume *corev1.Volume) (volumeselect.Traits, error) { return v.traits(ctx, volume) })
	if err != nil {
		v.log.Infof("whether Velero leaves pod %s out of the backup is not known: %v", v.pod.Name, err)
	}

	if len(names) > 0 {
		v.log.Warnf("Velero leaves pod %s out of the backup, for its own file-system backup is to take its volumes %s and node-agent doesn't run on node %s; "+
			"take defaultVolumesToFsBackup off the Backup, backup.velero.io/backup-volumes off the pod or fs-backup out of the volume policy, or have node-agent run there",
			v.pod.Name, strings.Join(names, ", "), v.pod.Spec.NodeName)
	}
}

// traits returns what volume policies look at of one of the pod's volumes.
func (v *visit) traits(ctx context.Context, volume *corev1.Volume) (volumeselect.Traits, error) {
	name := v1alpha1.ClaimName(v.pod, volume)
	if name == "" {
		return volumeselect.TraitsOf(nil, nil, volume), nil
	}

	var claim corev1.PersistentVolumeClaim
	if err := v.session.get(ctx, v.pod.Namespace, name, &claim); client.IgnoreNotFound(err) != nil {
		return volumeselect.Traits{}, fmt.Errorf("read claim %s/%s: %w", v.pod.Namespace, name, err)
	}

	var pv *corev1.PersistentVolume

	if claim.Spec.VolumeName != "" {
		var err error
		if pv, err = v.session.persistentVolume(ctx, claim.Spec.VolumeName); err != nil {
			return volumeselect.Traits{}, fmt.Errorf("read PersistentVolume %s: %w", claim.Spec.VolumeName, err)
		}
	}

	return volumeselect.TraitsOf(pv, &claim, volume), nil
}
