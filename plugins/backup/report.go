package backup

import (
	"errors"

	"github.com/sirupsen/logrus"
	velerov1 "github.com/vmware-tanzu/velero/pkg/apis/velero/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// report writes a verdict's line into the backup's log. Velero counts warnings,
// and makes the backup partially failed on errors.
func report(log logrus.FieldLogger, v volumeselect.Verdict) {
	write(log, v, v.Level)

	if v.Caution != "" {
		log.Warn("volume " + v.Volume + ": " + v.Caution)
	}
}

func write(log logrus.FieldLogger, v volumeselect.Verdict, level volumeselect.Level) {
	log = log.WithFields(logrus.Fields{"volume": v.Volume, "reason": string(v.Reason), "move": v.Move})

	text := "volume " + v.Volume + ": " + v.Fate() + ": " + v.Message

	switch level {
	case volumeselect.Error:
		log.Error(text)
	case volumeselect.Warning:
		log.Warn(text)
	default:
		log.Info(text)
	}
}

// say reports the verdict on a claim: once as loud as it is, by whichever action comes first.
func (s *Session) say(log logrus.FieldLogger, b *velerov1.Backup, claim *corev1.PersistentVolumeClaim, v volumeselect.Verdict) {
	if finalizing(b) {
		return
	}

	if claim.UID != "" && !s.first(string(b.UID)+"/"+string(claim.UID)) {
		write(log, v, volumeselect.Info)

		return
	}

	report(log, v)

	for _, stray := range volumeselect.ClaimStrays(claim) {
		report(log, stray)
	}
}

// unprotected says that a selected volume is not backed up. It is an error
// in the log, not in the result: the item stays in the backup.
func unprotected(log logrus.FieldLogger, volume string, err error) {
	log.WithField("volume", volume).Errorf("volume %s is not backed up: %v", volume, err)
}

// missed says that a volume which was to be moved is not backed up. Whatever an outage keeps from a backup is an error,
// whoever asked for the volume; what the cluster isn't set up for is as loud as the volume was asked for.
func missed(log logrus.FieldLogger, v volumeselect.Verdict, err error) {
	if !errors.Is(err, errNodeLeftOut) || v.Loud == volumeselect.Error {
		unprotected(log, v.Volume, err)

		return
	}

	v.Move, v.Level, v.Message = false, v.Loud, err.Error()
	write(log, v, v.Loud)
}

func asked(log logrus.FieldLogger, job *v1alpha1.VolumeBackup, how string) {
	log.WithFields(logrus.Fields{"job": job.Name, "volume": volumeKey(job.Spec.Volume)}).
		Infof("VolumeBackup %s/%s for %s: %s", job.Namespace, job.Name, volumeKey(job.Spec.Volume), how)
}

// lostBy says in a record why a volume that somebody asked for isn't in the backup; empty for all others.
func lostBy(v volumeselect.Verdict) string {
	if !v.Lost() {
		return ""
	}

	return string(v.Reason) + ": " + v.Message
}

// notAskedFor says in a record that the volume's job could not be asked for.
func notAskedFor(err error) string { return "NotAskedFor: " + err.Error() }
