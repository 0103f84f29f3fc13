package backup

import (
	"context"
	"sync"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
	"github.com/estiba-dev/estiba/plugins/operation"
)

// Bounds of the actions' calls.
const (
	// executeBound bounds one Execute without the wait of a frozen pod: Velero sets no deadline.
	executeBound = 90 * time.Second
	// progressBound bounds one question for progress without the hold.
	progressBound = 15 * time.Second
	// memory is how long what was read of the cluster serves further calls: the
	// actions on a volume, its claim and its pod follow each other within milliseconds.
	memory = 5 * time.Second
)

// Session is what one plugin process knows of the cluster. All actions of a
// process share one. Velero may call them at the same time.
type Session struct {
	connect operation.Connect
	clock   clock.Clock
	poll    *operation.Poll

	mu       sync.Mutex
	settings map[types.UID]told
	// snapshots are the claims of which Velero has taken a CSI snapshot, by the
	// backup's UID and the claim's: only the claim's own action is told.
	snapshots map[string]bool
	pods      map[string]remembered[[]corev1.Pod]
	volumes   map[string]remembered[*corev1.PersistentVolume]
	restores  remembered[[]v1alpha1.VolumeRestore]
	beats     remembered[map[string]time.Time]
	daemons   remembered[map[string]bool]
	reported  map[string]bool
	// quiesced are the times since which the bound counts for a pod, by the backup's UID and the pod's.
	quiesced map[string]time.Time
	// finished are the jobs of the backup by volume, looked up when Velero finalizes.
	finished remembered[map[string]*v1alpha1.VolumeBackup]
	// promised are the jobs that records of PersistentVolumes and claims name.
	promised map[string]*v1alpha1.VolumeBackup
	// earlier are the jobs that were there when this process first had to know, by the backup's UID and by volume.
	earlier map[types.UID]map[string]*v1alpha1.VolumeBackup

	bare bare

	// A repository may be waited for; that must not keep others from what is known.
	repositoryMu sync.Mutex
	repositories map[repositoryKey]*repositoryAsk
	// impatient says that a repository was waited for in vain.
	impatient bool
}

type remembered[T any] struct {
	at    time.Time
	value T
}

// NewSession returns a Session that knows nothing yet and has called nobody.
func NewSession(connect operation.Connect, c clock.Clock) *Session {
	s := &Session{
		connect:      connect,
		clock:        c,
		settings:     map[types.UID]told{},
		snapshots:    map[string]bool{},
		pods:         map[string]remembered[[]corev1.Pod]{},
		volumes:      map[string]remembered[*corev1.PersistentVolume]{},
		repositories: map[repositoryKey]*repositoryAsk{},
		reported:     map[string]bool{},
		quiesced:     map[string]time.Time{},
		promised:     map[string]*v1alpha1.VolumeBackup{},
		earlier:      map[types.UID]map[string]*v1alpha1.VolumeBackup{},
	}
	s.poll = operation.NewPoll(c, operation.NewLister(connect, (*jobs.Jobs).BackupsOf, jobs.BackupProgress))

	return s
}

// persistentVolume reads a PersistentVolume: once for its own action, its claim's
// and its pod's. It gives nil where there is none of that name.
func (s *Session) persistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	s.mu.Lock()
	known, ok := s.volumes[name]
	s.mu.Unlock()

	if ok && s.clock.Since(known.at) < memory {
		return known.value, nil
	}

	pv := new(corev1.PersistentVolume)
	if err := s.get(ctx, "", name, pv); err != nil {
		return nil, client.IgnoreNotFound(err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	now := s.clock.Now()
	dropStale(s.volumes, now)
	s.volumes[name] = remembered[*corev1.PersistentVolume]{at: now, value: trimmedVolume(pv)}

	return pv, nil
}

func (s *Session) get(ctx context.Context, namespace, name string, into client.Object) error {
	c, err := s.connect()
	if err != nil {
		return err
	}

	return c.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, into)
}

// first reports whether this is the first call with the key: a claim's verdict is
// said aloud once, by whichever action comes first.
func (s *Session) first(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	known := s.reported[key]
	s.reported[key] = true

	return !known
}

func finalizing(b *velerov1.Backup) bool {
	return b.Status.Phase == velerov1.BackupPhaseFinalizing || b.Status.Phase == velerov1.BackupPhaseFinalizingPartiallyFailed
}

func volumeKey(v v1alpha1.VolumeReference) string {
	if v.Claim != nil {
		return "claim/" + v.Namespace + "/" + v.Claim.Name
	}

	return "pod/" + v.Namespace + "/" + v.Pod.Name + "/" + v.Name
}
