package app

import (
	"crypto/rand"
	"fmt"
	"io"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/config"
	"github.com/estiba-dev/estiba/mover/controllers/cluster"
	"github.com/estiba-dev/estiba/mover/controllers/node"
	"github.com/estiba-dev/estiba/mover/controllers/podlist"
	"github.com/estiba-dev/estiba/mover/credentials"
	"github.com/estiba-dev/estiba/mover/nodevolume"
)

// uncached are the kinds that are always read from the API server.
func uncached() []client.Object {
	return []client.Object{&corev1.Secret{}, &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}}
}

// watched are the kinds that a role's controllers watch.
func watched(role config.Role) []client.Object {
	both := []client.Object{&v1alpha1.VolumeBackup{}, &v1alpha1.VolumeRestore{}, &corev1.Pod{}}
	if role == config.RoleNode {
		return both
	}

	return append(both, &v1alpha1.SnapshotDeletion{}, &v1alpha1.Repository{},
		&velerov1.Backup{}, &velerov1.Restore{}, &velerov1.BackupStorageLocation{})
}

func runNode(c config.Config, stderr io.Writer) error {
	p, err := newProcess(c, stderr, node.CacheOptions(c.NodeName, c.Namespace))
	if err != nil {
		return err
	}

	changes := node.NewChanges()

	if err := p.startTasks(&keys{reader: p.manager.GetAPIReader(), namespace: c.Namespace}, changes.Notify); err != nil {
		return err
	}

	opener := newVolumes(nodevolume.New(c.PodsRoot, c.HostRoot), p.clock)
	n := &node.Node{
		Name: c.NodeName, Namespace: c.Namespace,
		Client: p.manager.GetClient(), Direct: p.manager.GetAPIReader(), Pods: podlist.New(p.manager.GetAPIReader(), p.clock),
		Tasks: p.tasks, Volumes: opener,
		Events: p.manager.GetEventRecorderFor("estiba-node"), Metrics: p.metrics, Clock: p.clock, Bounds: c.Bounds,
	}

	if err := n.Setup(p.manager, node.NewGateKeeper(n, gates{opener, p.clock.Now}), changes); err != nil {
		return err
	}

	// The heartbeat must not wait for caches: a client of its own.
	direct, err := client.New(p.manager.GetConfig(), client.Options{Scheme: p.manager.GetScheme(), Mapper: p.manager.GetRESTMapper()})
	if err != nil {
		return fmt.Errorf("make the heartbeat's client: %w", err)
	}

	err = p.manager.Add(&node.Heartbeat{
		Node: c.NodeName, Namespace: c.Namespace, Every: c.Heartbeat, Client: direct, Clock: p.clock,
		LostAfter: c.Bounds.NodeLost - node.FenceMargin, Lost: n.Fence,
	})
	if err != nil {
		return fmt.Errorf("add the heartbeat: %w", err)
	}

	p.log.Info("the daemon starts", "node", c.NodeName, "namespace", c.Namespace, "version", version())

	return p.run()
}

func runController(c config.Config, stderr io.Writer) error {
	caches, err := cluster.CacheOptions(c.Namespace)
	if err != nil {
		return err
	}

	p, err := newProcess(c, stderr, caches)
	if err != nil {
		return err
	}

	var (
		changes = cluster.NewChanges()
		k       = &keys{reader: p.manager.GetAPIReader(), writer: p.manager.GetClient(), namespace: c.Namespace}
	)

	if err := p.startTasks(k, changes.Notify); err != nil {
		return err
	}

	staging, err := cluster.StagingCache(p.manager, c.Namespace)
	if err != nil {
		return err
	}

	cl := &cluster.Cluster{
		Namespace: c.Namespace, Client: p.manager.GetClient(), Direct: p.manager.GetAPIReader(), Staging: staging,
		Pods:  podlist.New(p.manager.GetAPIReader(), p.clock),
		Tasks: p.tasks, Buckets: p.tasks.locations, Keys: k,
		NewID:   func() (string, error) { return credentials.NewRepositoryID(rand.Reader) },
		NewSeed: func() string { return rand.Text() + rand.Text() },
		Beats:   cluster.NewBeats(p.manager.GetClient(), c.Namespace, p.clock),
		Events:  p.manager.GetEventRecorderFor("estiba-controller"), Metrics: p.metrics, Clock: p.clock, Bounds: c.Bounds,
	}

	if err := cl.Setup(p.manager, cluster.NewRepositories(cl, changes), changes); err != nil {
		return err
	}

	p.log.Info("the controller starts", "namespace", c.Namespace, "version", version())

	return p.run()
}
