package backup

import (
	"context"
	"errors"
	"fmt"
	"time"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	// repositoryBoundAgain is how long they wait for a further one when one was waited for in vain.
	repositoryBoundAgain = 3 * time.Second
	// creationBound is how long they wait for one that the controller is at work on.
	creationBound  = 60 * time.Second
	repositoryPace = 100 * time.Millisecond
	// answerMemory is how long an error serves further calls: each volume of a namespace would else wait anew, and none
	// is to be lost because the store didn't answer for the first.
	answerMemory = 15 * time.Second
)

// errNodeLeftOut says that nobody is to move volumes on a node, ever: no daemon has reported from it, and the DaemonSet
// has no pod for it. That is how a cluster with virtual nodes is set up, and no outage.
var errNodeLeftOut = errors.New("estiba has no daemon there, and isn't to have one")

type repositoryKey struct{ location, namespace string }

// repositoryAsk is one question for a repository, which all wait for that ask the same. The rest is written before
// answered is closed, and never again.
type repositoryAsk struct {
	answered   chan struct{}
	at         time.Time
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

	at, ok := beats[node]
	if !ok {
		if meant, err := s.meant(ctx, namespace); err == nil && !meant[node] {
			return fmt.Errorf("node %s: %w; exclude the volumes of its pods, or have the DaemonSet cover it (its nodeSelector, affinity and tolerations): kubectl -n %s get daemonsets -l %s",
				node, errNodeLeftOut, namespace, selector)
		}
	}

	if !ok || now.Sub(at) >= heartbeatBound {
		return fmt.Errorf("the node daemon of Estiba on node %s has not reported within %s (%d others have), or the node's clock is behind: kubectl -n %s get pods -l %s --field-selector spec.nodeName=%s",
			node, heartbeatBound, fresh, namespace, selector, node)
	}

	return nil
}

// meant returns the nodes that the daemons' DaemonSet has pods for, whether they run or not.
func (s *Session) meant(ctx context.Context, namespace string) (map[string]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.daemons.value != nil && s.clock.Since(s.daemons.at) < memory {
		return s.daemons.value, nil
	}

	c, err := s.connect()
	if err != nil {
		return nil, err
	}

	var list corev1.PodList
	if err := c.List(ctx, &list, client.InNamespace(namespace), client.MatchingLabels{contract.LabelComponent: contract.ComponentNode}); err != nil {
		return nil, fmt.Errorf("list the pods of the node daemons in namespace %s: %w", namespace, err)
	}

	nodes := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		nodes[placedOn(&list.Items[i])] = true
	}

	s.daemons = remembered[map[string]bool]{at: s.clock.Now(), value: nodes}

	return nodes, nil
}

// placedOn returns the node of a DaemonSet's pod, which is written into its affinity before it is on it.
func placedOn(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" || pod.Spec.Affinity == nil || pod.Spec.Affinity.NodeAffinity == nil ||
		pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return pod.Spec.NodeName
	}

	for _, term := range pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range term.MatchFields {
			if f.Key == metav1.ObjectNameField && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}

	return ""
}

// heartbeats returns when the daemon of each node reported last.
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

// repository makes sure of the repository of a namespace's volumes. Who asks for the same one waits for one answer;
// nobody waits for another's.
func (s *Session) repository(ctx context.Context, b *velerov1.Backup, volumesOf string) (v1alpha1.RepositoryReference, error) {
	key := repositoryKey{location: b.Spec.StorageLocation, namespace: volumesOf}

	ask, wait := s.ask(key, startOf(b))
	if wait != nil {
		go s.answer(b.Namespace, key, ask, *wait) //nolint:gosec // Others wait for the answer, too, when this caller has gone.
	}

	select {
	case <-ask.answered:
		return ask.repository, ask.err
	case <-ctx.Done():
		return v1alpha1.RepositoryReference{}, fmt.Errorf("wait for the repository of namespace %s in backup storage location %s: %w",
			volumesOf, key.location, ctx.Err())
	}
}

// ask returns the question that is open, or whose answer counts; else a new one, and how to wait for its answer.
func (s *Session) ask(key repositoryKey, since time.Time) (*repositoryAsk, *jobs.RepositoryWait) {
	s.repositoryMu.Lock()
	defer s.repositoryMu.Unlock()

	if known := s.repositories[key]; known != nil {
		select {
		case <-known.answered:
			if known.err == nil || s.clock.Since(known.at) < answerMemory {
				return known, nil
			}

			// What the controller saw then has been told already.
			since = known.at
		default:
			return known, nil
		}
	}

	wait := &jobs.RepositoryWait{Since: since, Now: s.clock.Now(), Every: repositoryPace, Bound: repositoryBound, Creation: creationBound}
	if s.impatient {
		wait.Bound = repositoryBoundAgain
	}

	s.repositories[key] = &repositoryAsk{answered: make(chan struct{})}

	return s.repositories[key], wait
}

// answer waits for the repository with a bound of its own: whoever asked first may have less time left than others.
func (s *Session) answer(namespace string, key repositoryKey, ask *repositoryAsk, wait jobs.RepositoryWait) {
	ctx, cancel := context.WithTimeout(context.Background(), executeBound)
	defer cancel()

	repo, err := s.waitRepository(ctx, namespace, key, wait)

	s.repositoryMu.Lock()
	defer s.repositoryMu.Unlock()

	if err == nil {
		ask.repository = v1alpha1.RepositoryReference{BackupStorageLocation: key.location, Namespace: key.namespace, ID: repo.Status.ID}
		s.impatient = false
	} else {
		ask.err = repositoryRemedy(err, namespace, key)
		s.impatient = s.impatient || errors.Is(err, jobs.ErrRepositoryUnanswered) || errors.Is(err, jobs.ErrRepositoryNotReady)
	}

	ask.at = s.clock.Now()
	close(ask.answered)
}

func (s *Session) waitRepository(ctx context.Context, namespace string, key repositoryKey, wait jobs.RepositoryWait) (*v1alpha1.Repository, error) {
	j, err := s.connect.Jobs(namespace)
	if err != nil {
		return nil, err
	}

	wait.Place = s.place(ctx, namespace, key.location)

	return j.WaitRepository(ctx, key.location, key.namespace, wait)
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
