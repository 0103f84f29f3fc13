package restore

import (
	"context"
	"errors"
	"fmt"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/plugins/settings"
)

// settings returns what administrators have set for restores, as the Restore's annotations change it. What is wrong with it
// is said once in a restore; a default stands in.
func (s *Session) settings(ctx context.Context, log logrus.FieldLogger, r *velerov1.Restore) (settings.Settings, error) {
	s.mu.Lock()
	known, ok := s.set[r.UID]
	s.mu.Unlock()

	if ok {
		return known, nil
	}

	set, problems, err := s.read(ctx, r)
	if err != nil {
		return settings.Settings{}, err
	}

	for _, p := range problems.Errors {
		s.say(r, errors.New(p))
	}

	for _, p := range problems.Warnings {
		log.Warn(p)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	s.set[r.UID] = set

	return set, nil
}

func (s *Session) read(ctx context.Context, r *velerov1.Restore) (settings.Settings, settings.Problems, error) {
	ours, err := s.configMaps(ctx, r.Namespace, client.HasLabels{contract.LabelPluginConfig})
	if err != nil {
		return settings.Settings{}, settings.Problems{}, err
	}

	set, problems := settings.Read(ours)
	set, more := set.ForRestore(r.Name, r.Annotations)
	problems = problems.And(more)

	if len(ours) == 0 {
		label, named, kind := settings.VeleroGate()

		veleros, err := s.configMaps(ctx, r.Namespace, client.HasLabels{label}, client.MatchingLabels{named: kind})
		if err != nil {
			return settings.Settings{}, settings.Problems{}, err
		}

		set, more = set.WithVeleroGate(veleros)
		problems = problems.And(more)
	}

	return set, problems, nil
}

func (s *Session) configMaps(ctx context.Context, namespace string, with ...client.ListOption) ([]corev1.ConfigMap, error) {
	c, err := s.connect()
	if err != nil {
		return nil, err
	}

	var list corev1.ConfigMapList
	if err := c.List(ctx, &list, append(with, client.InNamespace(namespace))...); err != nil {
		return nil, fmt.Errorf("list the ConfigMaps in namespace %s that hold settings: %w", namespace, err)
	}

	return list.Items, nil
}
