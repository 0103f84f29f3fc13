package backup

import (
	"context"
	"fmt"
	"strings"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/settings"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// globalPolicies is the annotation by which Velero's server tells the name of
// the policies of all backups (velero v1.18.3 pkg/apis/velero/v1/labels_annotations.go).
const globalPolicies = "velero.io/global-backup-volume-policy-configmap"

// The label and the container by which Velero knows the pods of its own
// file-system backup (velero v1.18.3 pkg/nodeagent/node_agent.go).
const (
	agentLabel = "role"
	agentRole  = "node-agent"
)

// told is what counts for a backup's volumes, and what is wrong with it.
type told struct {
	settings volumeselect.Settings
	problems settings.Problems
}

// heed says what is wrong with the settings, once in a backup's log. An error
// there makes the backup partially failed; no item is kept from it. What can't
// even be read is said for each volume.
func (s *Session) heed(ctx context.Context, log logrus.FieldLogger, b *velerov1.Backup) {
	if finalizing(b) {
		return
	}

	t, err := s.toldOf(ctx, b)
	if err != nil || !s.first(string(b.UID)+"/settings") {
		return
	}

	for _, text := range t.problems.Errors {
		log.Error(text)
	}

	for _, text := range t.problems.Warnings {
		log.Warn(text)
	}
}

// toldOf returns what counts for the backup's volumes. Velero checks the policies
// before the backup starts, and none of it is to change while it runs.
func (s *Session) toldOf(ctx context.Context, b *velerov1.Backup) (told, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if known, ok := s.settings[b.UID]; ok {
		return known, nil
	}

	t := told{settings: volumeselect.Settings{
		VeleroNamespace:  b.Namespace,
		CoreTakesAll:     b.Spec.DefaultVolumesToFsBackup != nil && *b.Spec.DefaultVolumesToFsBackup,
		CoreLeavesClaims: b.Spec.SnapshotMoveData != nil && *b.Spec.SnapshotMoveData,
	}}

	for _, read := range []func(context.Context, *velerov1.Backup, *told) error{s.readOwn, s.readPolicies, s.readAgents, s.readSnapshotters} {
		if err := read(ctx, b, &t); err != nil {
			return told{}, err
		}
	}

	s.settings[b.UID] = t

	return t, nil
}

func (s *Session) readOwn(ctx context.Context, b *velerov1.Backup, t *told) error {
	c, err := s.connect()
	if err != nil {
		return err
	}

	var list corev1.ConfigMapList
	if err := c.List(ctx, &list, client.InNamespace(b.Namespace), client.HasLabels{contract.LabelPluginConfig}); err != nil {
		return fmt.Errorf("look for the plugins' settings, a ConfigMap with the label %s in namespace %s: %w", contract.LabelPluginConfig, b.Namespace, err)
	}

	general, problems := settings.Read(list.Items)

	var more settings.Problems

	t.settings.Own, more = general.ForBackup(b.Name, b.Annotations)
	t.problems = problems.And(more)

	return nil
}

// readPolicies reads the ConfigMaps in the order in which their rules are tried.
func (s *Session) readPolicies(ctx context.Context, b *velerov1.Backup, t *told) error {
	var names []string

	if ref := b.Spec.ResourcePolicy; ref != nil && strings.EqualFold(ref.Kind, "configmap") {
		names = append(names, ref.Name)
	}

	if name := b.Annotations[globalPolicies]; name != "" {
		names = append(names, name)
	}

	for _, name := range names {
		var cm corev1.ConfigMap
		if err := s.get(ctx, b.Namespace, name, &cm); err != nil {
			return fmt.Errorf("read the volume policies in ConfigMap %s/%s: %w", b.Namespace, name, err)
		}

		p, err := volumeselect.ParsePolicies(cm.Data)
		if err != nil {
			return fmt.Errorf("ConfigMap %s/%s: %w", b.Namespace, name, err)
		}

		t.settings.Policies = t.settings.Policies.Followed(p)
	}

	return nil
}

// readAgents looks for the nodes on which Velero's own file-system backup can work.
func (s *Session) readAgents(ctx context.Context, b *velerov1.Backup, t *told) error {
	c, err := s.connect()
	if err != nil {
		return err
	}

	var list corev1.PodList
	if err := c.List(ctx, &list, client.InNamespace(b.Namespace), client.MatchingLabels{agentLabel: agentRole}); err != nil {
		return fmt.Errorf("list the pods of Velero's node-agent in namespace %s: %w", b.Namespace, err)
	}

	t.settings.CoreNodes = map[string]bool{}

	for i := range list.Items {
		if list.Items[i].Status.Phase == corev1.PodRunning {
			t.settings.CoreNodes[list.Items[i].Spec.NodeName] = true
		}
	}

	return nil
}

// readSnapshotters looks for who takes snapshots, unless the backup has them off.
func (s *Session) readSnapshotters(ctx context.Context, b *velerov1.Backup, t *told) error {
	if b.Spec.SnapshotVolumes != nil && !*b.Spec.SnapshotVolumes {
		return nil
	}

	for _, name := range b.Spec.VolumeSnapshotLocations {
		var l velerov1.VolumeSnapshotLocation

		switch err := s.get(ctx, b.Namespace, name, &l); {
		case err == nil:
			t.settings.Snapshotters = append(t.settings.Snapshotters, l.Spec.Provider)
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("read VolumeSnapshotLocation %s/%s: %w", b.Namespace, name, err)
		}
	}

	return nil
}

// snapshotted reports whether Velero has taken a CSI snapshot of the claim for
// this backup, as this call or an earlier one was told.
func (s *Session) snapshotted(b *velerov1.Backup, claim *corev1.PersistentVolumeClaim) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	key := string(b.UID) + "/" + string(claim.UID)
	if volumeselect.CSISnapshotted(claim, b.Name) {
		s.snapshots[key] = true
	}

	return s.snapshots[key]
}
