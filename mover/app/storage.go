package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/config"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/controllers/task"
	"github.com/estiba-dev/estiba/mover/credentials"
	"github.com/estiba-dev/estiba/mover/credentials/role"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/runner"
	"github.com/estiba-dev/estiba/mover/state"
	"github.com/estiba-dev/estiba/mover/store"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// locations opens the stores of BackupStorageLocations. Locations and Secrets
// are read anew each time, so that a change is taken up.
type locations struct {
	reader    client.Reader
	namespace string
	from      credentials.Surroundings
	options   store.Options
	caches    *caches
	away      *away
	// room is what the brokers of all workers hold at a time, spool where they put what is too large for it.
	room  *store.Room
	spool string
}

func newLocations(reader client.Reader, c config.Config, counters *store.Counters) *locations {
	l := &locations{
		reader: reader, namespace: c.Namespace,
		options: store.Options{
			RetryFor: c.StoreRetry, StallAfter: c.StoreStall, Counters: counters,
			Upload: limiter(c.UploadLimit), Download: limiter(c.DownloadLimit),
		},
		caches: newCaches(c.CacheDir, c.CacheTotal, hardFactor*(c.MetadataCache+c.ContentCache), time.Now),
		away:   newAway(clock.RealClock{}),
		room:   store.NewRoom(brokerMemory(c.MemoryShare), c.Slots+c.Reserved),
		spool:  c.CacheDir,
	}
	l.from = credentials.Surroundings{
		Secrets:  l.secret,
		Fallback: corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: c.CredentialsSecret}, Key: c.CredentialsKey},
		Role: role.Surroundings{
			Env: c.Env, File: os.ReadFile, Client: clientFor, Near: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
		},
	}

	return l
}

// clientFor makes what asks for a role on behalf of a store.
func clientFor(s settings.Settings) (*http.Client, error) {
	t, err := store.Transport(s)
	if err != nil {
		return nil, fmt.Errorf("ask for the role of this pod: %w", err)
	}

	return &http.Client{Transport: t}, nil
}

func limiter(bytesPerSecond int64) *store.Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}

	return store.NewLimiter(bytesPerSecond, clock.RealClock{})
}

// secret reads a key of a Secret, in the way that package credentials wants it.
func (l *locations) secret(ctx context.Context, name, key string) ([]byte, error) {
	var s corev1.Secret

	err := l.reader.Get(ctx, types.NamespacedName{Namespace: l.namespace, Name: name}, &s)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("Secret %s/%s %w", l.namespace, name, credentials.ErrNoSecret) //nolint:staticcheck // a kind's name
	}

	if err != nil {
		return nil, engine.Errorf(engine.CodeStoreUnavailable, "read Secret %s/%s: %w", l.namespace, name, err)
	}

	value, ok := s.Data[key]
	if !ok {
		return nil, fmt.Errorf("Secret %s/%s has no key %q", l.namespace, name, key) //nolint:staticcheck // a kind's name
	}

	return value, nil
}

// access is how one worker uses a repository.
type access struct {
	readOnly bool
	// attempt is the number of the job's run, from 1.
	attempt int32
}

// open opens the storage of one repository, for one worker.
func (l *locations) open(ctx context.Context, ref v1alpha1.RepositoryReference, a access) (runner.Storage, error) {
	var location velerov1.BackupStorageLocation

	err := l.reader.Get(ctx, types.NamespacedName{Namespace: l.namespace, Name: ref.BackupStorageLocation}, &location)
	if apierrors.IsNotFound(err) {
		return nil, &task.BlockedError{Finding: state.Finding{
			Reason: state.ReasonLocationNotFound, Message: fmt.Sprintf("BackupStorageLocation %s does not exist", ref.BackupStorageLocation),
		}}
	}

	if err != nil {
		return nil, engine.Errorf(engine.CodeStoreUnavailable, "read BackupStorageLocation %s: %w", ref.BackupStorageLocation, err)
	}

	folder, err := contract.RepositoryPath(ref.Namespace, ref.ID)
	if err != nil {
		return nil, engine.Errorf(engine.CodeInvalidRequest, "folder of the repository: %w", err)
	}

	at, err := credentials.FromLocation(ctx, &location, l.from)
	if err != nil {
		return nil, fmt.Errorf("read the location: %w", err)
	}

	options := l.at(at)
	options.ReadOnly = a.readOnly

	open := func(o store.Options) (blob.Storage, error) {
		st, err := store.Open(ctx, at.Settings, at.Source(l.from), folder, o)
		if err != nil {
			return nil, fmt.Errorf("open the store of location %s: %w", location.Name, err)
		}

		return st, nil
	}

	if a.attempt > 1 {
		if err := answers(ctx, open, options); err != nil {
			return nil, err
		}
	}

	st, err := open(options)
	if err != nil {
		return nil, err
	}

	release, err := l.caches.hold(ref.ID)
	if err != nil {
		return nil, errors.Join(engine.Errorf(engine.CodeInternal, "make room for the cache of repository %s: %w", ref.ID, err), st.Close(ctx))
	}

	return &served{
		broker: store.NewBroker(st, store.BrokerOptions{ReadOnly: a.readOnly, Room: l.room, Spool: l.spool}),
		close: sync.OnceValue(func() error {
			release()

			// The job's context may be done; closing needs no store.
			return st.Close(context.WithoutCancel(ctx))
		}),
	}, nil
}

// answers asks a store once whether it is there. The attempts of a job share one
// bound of patience in this way: the first has waited for a store that is away
// for as long as is allowed, and those after it must not hold a slot for as long again.
func answers(ctx context.Context, open func(store.Options) (blob.Storage, error), o store.Options) error {
	o.RetryFor, o.StallAfter = -1, min(o.StallAfter, bucketStall)

	st, err := open(o)
	if err != nil {
		return err
	}

	defer st.Close(ctx) //nolint:errcheck // it was only asked for

	// What is not there yet may be what the job is about to make.
	_, err = st.GetMetadata(ctx, format.KopiaRepositoryBlobID)
	if err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
		return fmt.Errorf("look whether the store answers again: %w", err)
	}

	return nil
}

// at returns the options for a location: its errors name it.
func (l *locations) at(at credentials.Location) store.Options {
	o := l.options
	o.Place = placeOf(at.Settings)

	if at.Secret.Name != "" {
		o.Secret = fmt.Sprintf("key %s of Secret %s/%s", at.Secret.Key, l.namespace, at.Secret.Name)
		if at.Profile != "" {
			o.Secret += ", profile [" + at.Profile + "]"
		}
	}

	switch {
	case at.OrRole && o.Secret == "":
		o.Secret = "the role of this pod"
	case at.OrRole:
		o.Secret += ", or where there is no such Secret the role of this pod"
	}

	return o
}

// placeOf names a store for people.
func placeOf(s settings.Settings) string {
	switch {
	case s.Kind == settings.Filesystem:
		return "folder " + s.Path
	case s.Endpoint == "":
		return "bucket " + s.Bucket + " of Amazon S3, region " + cmp.Or(s.Region, "not set")
	case s.DoNotUseTLS:
		return "bucket " + s.Bucket + " at http://" + s.Endpoint
	default:
		return "bucket " + s.Bucket + " at https://" + s.Endpoint
	}
}

// served is the storage of one worker, with its part of the node's caches.
type served struct {
	broker *store.Broker
	close  func() error
}

// Serve serves the worker at the other end of the socket.
func (s *served) Serve(ctx context.Context, socket *os.File) error {
	return s.broker.Serve(ctx, socket)
}

// Close closes the storage when the worker has ended.
func (s *served) Close() error {
	if err := s.close(); err != nil {
		return fmt.Errorf("close the store: %w", err)
	}

	return nil
}
