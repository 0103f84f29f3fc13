//go:build e2e && slow

package e2e

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/jobs"
)

// manner is how a relay treats connections.
type manner int

const (
	// passing: what comes in goes out.
	passing manner = iota
	// away: connections are closed, as by a server that is being restarted.
	away
	// mute: connections are taken, and nothing is ever answered.
	mute
)

// relay stands between a storage location and the cluster's object store.
type relay struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	now    manner
	change *sync.Cond
	open   map[net.Conn]bool
	// vain counts the connections that came while it was not passing.
	vain int
}

func (c *cell) relay(to string) *relay {
	c.t.Helper()

	host, _, err := net.SplitHostPort(to)
	require.NoError(c.t, err)

	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	require.NoError(c.t, err)

	r := &relay{listener: listener, to: to, open: map[net.Conn]bool{}}
	r.change = sync.NewCond(&r.mu)

	var all sync.WaitGroup

	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}

			all.Go(func() { r.serve(conn) })
		}
	})
	c.t.Cleanup(func() {
		assert.NoError(c.t, listener.Close())
		r.be(away)
		all.Wait()
	})

	return r
}

// be changes its manner.
func (r *relay) be(m manner) {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.now, r.vain = m, 0
	r.change.Broadcast()

	if m == away {
		for conn := range r.open {
			_ = conn.Close()
		}
	}
}

// tried waits until so many connections have come in vain.
func (c *cell) tried(r *relay, times int) {
	c.t.Helper()
	c.eventually("the store to be tried", func(context.Context) (bool, error) {
		r.mu.Lock()
		defer r.mu.Unlock()

		return r.vain >= times, nil
	})
}

// take counts a connection in, unless it is away.
func (r *relay) take(conn net.Conn, comes bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()

	if comes && r.now != passing {
		r.vain++
	}

	if r.now == away {
		return false
	}

	r.open[conn] = true

	return true
}

func (r *relay) drop(conn net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()

	delete(r.open, conn)

	_ = conn.Close()
}

func (r *relay) serve(in net.Conn) {
	defer r.drop(in)

	if !r.take(in, true) {
		return
	}

	out, err := net.Dial("tcp", r.to)
	if err != nil || !r.take(out, false) {
		return
	}

	var both sync.WaitGroup

	both.Go(func() { defer r.drop(in); r.pipe(in, out) })
	both.Go(func() { defer r.drop(out); r.pipe(out, in) })
	both.Wait()
}

func (r *relay) pipe(to, from net.Conn) {
	buffer := make([]byte, 32<<10)

	for {
		n, err := from.Read(buffer)
		r.hold()

		if _, failed := to.Write(buffer[:n]); errors.Join(err, failed) != nil {
			return
		}
	}
}

// hold waits while it is mute.
func (r *relay) hold() {
	r.mu.Lock()
	defer r.mu.Unlock()

	for r.now == mute {
		r.change.Wait()
	}
}

// relayed makes a storage location, named as the cell's namespace, behind a relay.
func (c *cell) relayed() *relay {
	c.t.Helper()

	location := &velerov1.BackupStorageLocation{}
	require.NoError(c.t, c.Get(c.ctx, client.ObjectKey{Namespace: c.Namespace, Name: "default"}, location))

	server, err := url.Parse(location.Spec.Config["s3Url"])
	require.NoError(c.t, err)

	r := c.relay(server.Host)

	location = &velerov1.BackupStorageLocation{Spec: *location.Spec.DeepCopy()}
	location.Namespace, location.Name = c.Namespace, c.namespace
	location.Spec.Default = false
	location.Spec.ObjectStorage.Prefix = c.namespace
	location.Spec.Config["s3Url"] = "http://" + r.listener.Addr().String()
	c.create(location)
	c.create(&v1alpha1.Repository{
		ObjectMeta: jobs.NewRepository(c.Namespace, location.Name, c.namespace).ObjectMeta,
		Spec:       v1alpha1.RepositorySpec{BackupStorageLocation: location.Name, Namespace: c.namespace},
	})
	c.eventually("the location to be available", func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(location), location)

		return location.Status.Phase == velerov1.BackupStorageLocationPhaseAvailable, err
	})

	return r
}

// uploading starts a backup into the location, and waits until Velero waits for nothing but the volume "data".
func (c *cell) uploading() {
	c.t.Helper()

	_, err := c.Velero(c.ctx, "backup", "create", c.namespace, "--include-namespaces", c.namespace,
		"--snapshot-volumes=false", "--storage-location", c.namespace)
	require.NoError(c.t, err)
	c.eventually("Velero to wait for the upload", func(ctx context.Context) (bool, error) {
		var b velerov1.Backup
		err := c.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: c.namespace}, &b)

		return b.Status.Phase == velerov1.BackupPhaseWaitingForPluginOperations, err
	})
	c.running(c.namespace, "data")
}
