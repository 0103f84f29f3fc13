package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/jobs"
)

const (
	// heartbeatBound is how old a heartbeat may be. Daemons renew it every 10 s,
	// by their node's clock; the rest is for clocks that differ.
	heartbeatBound = 2 * time.Minute
	// repositoryBound is how long all actions of a process together wait for one repository.
	repositoryBound = 30 * time.Second
	// repositoryBoundAgain is how long they wait for a further one when nobody answered for the first.
	repositoryBoundAgain = 3 * time.Second
	// creationBound is how long they wait for one that the controller is at work on.
	creationBound  = 60 * time.Second
	repositoryPace = 100 * time.Millisecond
)

type repositoryKey struct{ location, namespace string }

// repositoryAnswer keeps the error, too: each volume of a namespace would else wait anew.
type repositoryAnswer struct {
	repository v1alpha1.RepositoryReference
	err        error
}

// ready makes sure that somebody will do a job for a volume on the node, and
// gives the repository that it goes to. Errors say what is missing and how to mend it.
func (s *Session) ready(ctx context.Context, b *velerov1.Backup, volumesOf, node string) (v1alpha1.RepositoryReference, error) {
	if err := s.alive(ctx, b.Namespace, node); err != nil {
		return v1alpha1.RepositoryReference{}, err
	}

	return s.repository(ctx, b, volumesOf)
}

// alive looks for the heartbeat of the node's daemon.
func (s *Session) alive(ctx context.Context, namespace, node string) error {
	beats, err := s.heartbeats(ctx, namespace)
	if err != nil {
		return err
	}

	now, fresh := s.clock.Now(), 0

	for _, at := range beats {
		if now.Sub(at) < heartbeatBound {
			fresh++
		}
	}

	const selector = contract.LabelComponent + "=" + contract.ComponentNode

	if fresh == 0 {
		return fmt.Errorf("no node daemon of Estiba has reported within %s: is it installed and running, and do the clocks of the nodes agree? kubectl -n %s get daemonsets,pods -l %s",
			heartbeatBound, namespace, selector)
	}

	if node == "" {
		return nil // the controller finds one
	}

	if at, ok := beats[node]; !ok || now.Sub(at) >= heartbeatBound {
		return fmt.Errorf("the node daemon of Estiba on node %s has not reported within %s (%d others have), or the node's clock is behind: kubectl -n %s get pods -l %s --field-selector spec.nodeName=%s",
			node, heartbeatBound, fresh, namespace, selector, node)
	}

	return nil
}

// heartbeats gives when the daemon of each node reported last.
func (s *Session) heartbeats(ctx context.Context, namespace string) (map[string]time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.beats.value != nil && s.clock.Since(s.beats.at) < memory {
		return s.beats.value, nil
	}

	c, err := s.connect()
	if err != nil {
		return nil, err
	}

	var list coordinationv1.LeaseList
	if err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{contract.LabelHeartbeat: contract.HeartbeatNode}); err != nil {
		return nil, fmt.Errorf("list the heartbeats of the node daemons in namespace %s: %w", namespace, err)
	}

	beats := make(map[string]time.Time, len(list.Items))

	for _, l := range list.Items {
		if l.Spec.HolderIdentity != nil && l.Spec.RenewTime != nil {
			beats[*l.Spec.HolderIdentity] = l.Spec.RenewTime.Time
		}
	}

	s.beats = remembered[map[string]time.Time]{at: s.clock.Now(), value: beats}

	return beats, nil
}

// repository makes sure of the repository of a namespace's volumes.
func (s *Session) repository(ctx context.Context, b *velerov1.Backup, volumesOf string) (v1alpha1.RepositoryReference, error) {
	s.repositoryMu.Lock()
	defer s.repositoryMu.Unlock()

	key := repositoryKey{location: b.Spec.StorageLocation, namespace: volumesOf}
	if known, ok := s.repositories[key]; ok {
		return known.repository, known.err
	}

	j, err := s.connect.Jobs(b.Namespace)
	if err != nil {
		return v1alpha1.RepositoryReference{}, err
	}

	wait := jobs.RepositoryWait{Since: startOf(b), Place: s.place(ctx, b.Namespace, key.location), Now: s.clock.Now(), Every: repositoryPace, Bound: repositoryBound, Creation: creationBound}
	if s.unanswered {
		wait.Bound = repositoryBoundAgain
	}

	var answer repositoryAnswer

	repo, err := j.WaitRepository(ctx, key.location, key.namespace, wait)
	if err == nil {
		answer.repository = v1alpha1.RepositoryReference{BackupStorageLocation: key.location, Namespace: key.namespace, ID: repo.Status.ID}
	} else {
		answer.err = repositoryRemedy(err, b.Namespace, key)
	}

	s.unanswered = s.unanswered || errors.Is(err, jobs.ErrRepositoryUnanswered)

	if err == nil || lasting(err) {
		s.repositories[key] = answer
	}

	return answer.repository, answer.err
}

// lasting tells whether asking again within the same backup would give the same error.
func lasting(err error) bool {
	return errors.Is(err, jobs.ErrRepositoryUnanswered) || errors.Is(err, jobs.ErrRepositoryCreating) ||
		errors.Is(err, jobs.ErrRepositoryNotReady) || errors.Is(err, jobs.ErrNotInstalled)
}

func repositoryRemedy(err error, namespace string, key repositoryKey) error {
	switch {
	case errors.Is(err, jobs.ErrNotInstalled):
		return notInstalled(err, namespace)
	case errors.Is(err, jobs.ErrRepositoryNotReady):
		return fmt.Errorf("%w; see: kubectl -n %s describe repositories.%s %s; kubectl -n %s get backupstoragelocation %s; kubectl -n %s get secret %s",
			err, namespace, v1alpha1.GroupName, jobs.RepositoryName(key.location, key.namespace), namespace, key.location, namespace, contract.MasterKeySecret)
	case errors.Is(err, jobs.ErrRepositoryCreating):
		return fmt.Errorf("%w; the controller is at work on it, so back up again when it is Ready: kubectl -n %s get repositories.%s %s",
			err, namespace, v1alpha1.GroupName, jobs.RepositoryName(key.location, key.namespace))
	case errors.Is(err, jobs.ErrRepositoryUnanswered):
		return fmt.Errorf("%w: does Estiba's controller run? kubectl -n %s get deployments,pods -l %s=%s",
			err, namespace, contract.LabelComponent, contract.ComponentController)
	default:
		return err
	}
}

// notInstalled adds the remedy to an error that wraps jobs.ErrNotInstalled.
func notInstalled(err error, namespace string) error {
	if !errors.Is(err, jobs.ErrNotInstalled) {
		return err
	}

	return fmt.Errorf("%w; apply your overlay of Estiba's manifests of the plugin's release to namespace %s "+
		"(README, \"Install it beside your Velero\"); its resource definitions are missing: kubectl get crds -l %s",
		err, namespace, "app.kubernetes.io/part-of=estiba")
}
