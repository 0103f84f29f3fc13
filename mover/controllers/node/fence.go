package node

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/state"
)

// fenced remembers the restores that this daemon has ended because it was cut off.
type fenced struct {
	mu    sync.Mutex
	finds map[types.UID]state.Finding
}

func (f *fenced) add(job types.UID, found state.Finding) {
	f.mu.Lock()
	defer f.mu.Unlock()

	if f.finds == nil {
		f.finds = map[types.UID]state.Finding{}
	}

	f.finds[job] = found
}

func (f *fenced) look(job types.UID) *state.Finding {
	f.mu.Lock()
	defer f.mu.Unlock()

	if found, ok := f.finds[job]; ok {
		return &found
	}

	return nil
}

func (f *fenced) drop(job types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()

	delete(f.finds, job)
}

// Fence ends the restores that run here: the controller is about to give them up,
// and what is restored in their place must not be written over by a node that
// nobody hears of. Backups write to nobody's volume, and go on.
func (n *Node) Fence(ctx context.Context, silent time.Duration) {
	var list v1alpha1.VolumeRestoreList

	if err := n.Client.List(ctx, &list, client.InNamespace(n.Namespace)); err != nil {
		log.FromContext(ctx).Error(err, "list the running restores in the cache")
		return
	}

	for i := range list.Items {
		job := &list.Items[i]

		run, known := n.Tasks.Look(job.Name)
		if !known || run.State == state.TaskEnded || !strings.HasPrefix(string(run.UID), string(workUID(job.UID, ""))) {
			continue
		}

		n.fenced.add(job.UID, state.Finding{Reason: state.ReasonNodeLost, Message: fmt.Sprintf(
			"the daemon on node %s could not reach the API server for %s and ended the restore, because others count the node as lost by now; restore again",
			n.Name, silent.Round(time.Second))})
		n.Tasks.End(job.Name, task.Abort)
	}
}
