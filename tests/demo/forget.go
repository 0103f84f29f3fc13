package main

import (
	"context"
	"fmt"
	"strings"

	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/tests/testkit/stock"
)

func (s *story) forget(ctx context.Context) (string, error) {
	before, err := s.snapshots(ctx)
	if err != nil {
		return "", err
	}

	for i := range 3 {
		name := fmt.Sprintf("%s-%d", s.run, i+1)
		s.say("$ velero backup delete %s --confirm", name)

		if _, err := s.lab.Velero(ctx, "backup", "delete", name, "--confirm"); err != nil {
			return "", err
		}

		if err := s.lab.Wait(ctx, "backup "+name+" to be gone", func(ctx context.Context) (bool, error) {
			err := s.lab.Get(ctx, client.ObjectKey{Namespace: s.lab.Namespace, Name: name}, &velerov1.Backup{})

			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		}); err != nil {
			return "", err
		}
	}

	after := -1

	err = s.lab.Wait(ctx, "the snapshots to be gone", func(ctx context.Context) (bool, error) {
		n, err := s.snapshots(ctx)
		after = n

		return n == 0, err
	})
	if err != nil {
		return "", err
	}

	s.say("snapshots of this run in the repository, counted by kopia's own code: %d before, %d after", before, after)

	return fmt.Sprintf("%d snapshots before, %d after", before, after), nil
}

// snapshots counts this run's snapshots without any of Estiba's code.
func (s *story) snapshots(ctx context.Context) (int, error) {
	repositories, err := s.lab.Repositories(ctx, namespace)
	if err != nil {
		return 0, err
	}

	n := 0

	for _, r := range repositories {
		opened, err := stock.Open(ctx, s.lab, r.Spec.BackupStorageLocation, r.Status.Path)
		if err != nil {
			return 0, err
		}

		manifests, err := opened.Snapshots(ctx)
		if err != nil {
			return 0, err
		}

		for _, m := range manifests {
			if strings.HasPrefix(m.Tags["tag:"+contract.TagBackup], s.run) {
				n++
			}
		}

		if err := opened.Close(ctx); err != nil {
			return 0, err
		}
	}

	return n, nil
}
