# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Completion for bash: the commands and options that the programs name themselves. Needs bash-completion.
_dualparal ()
{
  local cur prev words cword
  _init_completion -s || return
  case $prev in
    --model) _filedir -d; return ;;
    --output | --noise | --dump | --trace | --times | --add-times | --storyboard | --password-file) _filedir; return ;;
  esac
  if [[ $cur == -* ]]; then
    COMPREPLY=($(compgen -W "$(LC_ALL=C "$1" ${words[1]:+"${words[@]:1:1}"} --help 2> /dev/null | grep -oE -- '--[a-z0-9-]+=?')" -- "$cur"))
    [[ ${COMPREPLY-} == *= ]] && compopt -o nospace
  elif [[ ${1##*/} == dualparal && $cword == 1 ]]; then
    COMPREPLY=($(compgen -W "$(LC_ALL=C "$1" --help 2> /dev/null | awk '/^  [a-z]/ {print $1}')" -- "$cur"))
  fi
} && complete -F _dualparal dualparal dualparal-preview dualparal-rtsp-server dualparal-web
