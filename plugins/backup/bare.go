package backup

import (
	"sync"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
)

// bare remembers the PersistentVolumes that this process has put into a backup without a record, and why.
type bare struct {
	mu  sync.Mutex
	why map[string]string
}

func (n *bare) note(b *velerov1.Backup, pv, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()

	if n.why == nil {
		n.why = map[string]string{}
	}

	n.why[string(b.UID)+"/"+pv] = why
}

func (n *bare) look(b *velerov1.Backup, pv string) (why string, noted bool) {
	n.mu.Lock()
	defer n.mu.Unlock()

	why, noted = n.why[string(b.UID)+"/"+pv]

	return why, noted
}

// paired says aloud that a claim has a record and its PersistentVolume has none. Velero makes a volume that is kept
// when its claim goes anew as it was, and the restored claim would be bound to the original.
func (s *Session) paired(log logrus.FieldLogger, b *velerov1.Backup, pv *corev1.PersistentVolume) {
	if pv == nil || pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		return
	}

	if why, noted := s.bare.look(b, pv.Name); noted {
		log.Errorf("PersistentVolume %s is in the backup without a record, and its claim with one: a restore where it doesn't exist any more would bind the claim to it, "+
			"and doesn't restore the claim for that: %s; back up again, or restore with --exclude-resources persistentvolumes", pv.Name, why)
	}
}
