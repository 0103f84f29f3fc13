package backup

import (
	"github.com/sirupsen/logrus"

	"github.com/estiba-dev/estiba/mover/api/v1alpha1"
	"github.com/estiba-dev/estiba/plugins/volumeselect"
)

// report writes a verdict's line into the backup's log. Velero counts warnings,
// and makes the backup partially failed on errors.
func report(log logrus.FieldLogger, v volumeselect.Verdict) {
	log = log.WithFields(logrus.Fields{"volume": v.Volume, "reason": string(v.Reason), "move": v.Move})

	text := "volume " + v.Volume + ": not moved: " + v.Message
	if v.Move {
		text = "volume " + v.Volume + ": to be moved: " + v.Message
	}

	switch v.Level {
	case volumeselect.Error:
		log.Error(text)
	case volumeselect.Warning:
		log.Warn(text)
	default:
		log.Info(text)
	}

	if v.Caution != "" {
		log.Warn("volume " + v.Volume + ": " + v.Caution)
	}
}

// hushed gives the verdict as it is said by an action that comes after the one that said it aloud.
func hushed(v volumeselect.Verdict) volumeselect.Verdict {
	v.Level, v.Caution = volumeselect.Info, ""

	return v
}

// unprotected says that a selected volume is not backed up. It is an error
// in the log, not in the result: the item stays in the backup.
func unprotected(log logrus.FieldLogger, volume string, err error) {
	log.WithField("volume", volume).Errorf("volume %s is not backed up: %v", volume, err)
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
