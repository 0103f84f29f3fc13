package operation

import (
	"context"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/jobs"
)

// Connect returns the client of the cluster; it is called when one is needed, and often.
type Connect func() (client.Client, error)

// Jobs returns the door to the jobs of a namespace.
func (c Connect) Jobs(namespace string) (*jobs.Jobs, error) {
	connected, err := c()
	if err != nil {
		return nil, err
	}

	return jobs.New(connected, namespace), nil
}

// Owner returns the name under which a Poll knows a Backup or a Restore.
func Owner(o metav1.Object) string { return o.GetNamespace() + "/" + string(o.GetUID()) }

// NewLister returns the Lister of one kind of jobs: of lists those of an owner's UID, and progress reads one.
func NewLister[T any](
	c Connect, of func(*jobs.Jobs, context.Context, types.UID) ([]T, error), progress func(*T) jobs.Progress,
) Lister {
	return func(ctx context.Context, owner string) (map[string]jobs.Progress, error) {
		namespace, uid, _ := strings.Cut(owner, "/")

		j, err := c.Jobs(namespace)
		if err != nil {
			return nil, err
		}

		list, err := of(j, ctx, types.UID(uid))
		if err != nil {
			return nil, err
		}

		found := make(map[string]jobs.Progress, len(list))

		for i := range list {
			p := progress(&list[i])
			found[p.Job] = p
		}

		return found, nil
	}
}
